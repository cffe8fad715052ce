using FlipController.Core;

namespace FlipController.Linux.Hold;

/// <param name="Hold">Prepared, and open.</param>
/// <param name="Why">Why it is this one, in a sentence.</param>
public sealed record HoldChoice(Hold Hold, string Why)
{
    public const string Auto = "auto";

    /// <summary>What auto tries, the best first.</summary>
    private static readonly (string Method, Func<HoldScope, Hold> Prepare)[] s_candidates =
        [("plug", Plug), ("queue", QueueHold.Prepare)];

    public static IReadOnlyList<string> Methods { get; } = [Auto, "plug", "queue", "drop", "none"];

    /// <summary>In the calling thread's network namespace.</summary>
    /// <param name="method">One of <see cref="Methods"/>. Auto takes the first that works, and none when none does: it never drops.</param>
    /// <exception cref="FlipException">What was named does not work here; nothing is left of it.</exception>
    public static HoldChoice Prepare(string method, HoldScope scope) => method switch
    {
        Auto => Best(scope),
        "none" => new HoldChoice(new NoHold(scope), "as configured"),
        "drop" => new HoldChoice(DropHold.Prepare(scope), "as configured"),
        _ => new HoldChoice(s_candidates.Single(c => c.Method == method).Prepare(scope), "as configured"),
    };

    private static PlugHold Plug(HoldScope scope) => scope.MeetsNewRules
        ? PlugHold.Prepare(scope with { Local = false })
        : PlugHold.Prepare(scope, scope.Lanes);

    private static HoldChoice Best(HoldScope scope)
    {
        List<string> failed = [];
        foreach (var (method, prepare) in s_candidates)
        {
            try
            {
                Hold hold = prepare(scope);
                return new HoldChoice(hold, string.Join("; ", failed.Append($"{method} works")));
            }
            catch (FlipException e)
            {
                // What holds now and what to do is for who asked for this one by name.
                failed.Add($"{method} does not work here ({e.Message.Split("; nothing", 2)[0]})");
            }
        }
        return new HoldChoice(new NoHold(scope), string.Join("; ", failed));
    }
}
