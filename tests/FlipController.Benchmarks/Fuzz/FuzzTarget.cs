namespace FlipController.Fuzz;

/// <summary>Something that reads what others have written.</summary>
/// <param name="Name">What --only takes.</param>
/// <param name="Share">Of all cases, measured against the other targets': what is cheap to read is read more often.</param>
/// <param name="Samples">Whole and valid; damage begins with them.</param>
/// <param name="Read">True: taken, false: refused in the way it documents. Anything thrown is a defect.</param>
internal sealed record FuzzTarget(string Name, int Share, IReadOnlyList<byte[]> Samples, Func<byte[], bool> Read);

/// <summary>An input that was not read as it should be.</summary>
/// <param name="Case">With target and seed it is made again.</param>
/// <param name="What">What was thrown, or which bound was passed, in words.</param>
internal sealed record FuzzFailure(string Target, int Seed, long Case, string What, byte[] Input)
{
    public override string ToString() =>
        $"{Target}: {What}\n  again: fuzz --only {Target} --seed {Seed} --case {Case}\n  input: {Convert.ToHexString(Input)}";
}

/// <summary>What became of one target's cases.</summary>
/// <param name="Slowest">Of one case.</param>
/// <param name="MostBytes">Allocated by one case, on its own thread.</param>
internal sealed record FuzzTally(string Target, long Cases, long Refused, long Accepted, TimeSpan Slowest, long MostBytes, IReadOnlyList<FuzzFailure> Failures)
{
    public const string Head = "target                     cases      refused     accepted  slowest, ms   most MiB  failures";

    public override string ToString() => FormattableString.Invariant(
        $"{Target,-20} {Cases,11:N0} {Refused,12:N0} {Accepted,12:N0} {Slowest.TotalMilliseconds,12:N1} {MostBytes / 1048576.0,10:N1} {Failures.Count,9}");
}
