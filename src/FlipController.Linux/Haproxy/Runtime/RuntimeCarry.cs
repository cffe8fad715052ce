using System.Collections.Immutable;
using System.Text.Json;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>What a generation was like once, kept in its own directory for as long as it lives.</summary>
public sealed class RuntimeBaseline
{
    /// <summary>What its files gave.</summary>
    public static RuntimeBaseline Files { get; } = new("runtime-baseline.json");

    /// <summary>What it was when it got the traffic, with all that had been carried to it.</summary>
    public static RuntimeBaseline Switch { get; } = new("runtime-at-switch.json");

    private readonly string _name;

    private RuntimeBaseline(string name) => _name = name;

    private string PathOf(GenerationPlace place) => Path.Combine(place.Directory, _name);

    /// <summary>Null: none was taken, as by an earlier version.</summary>
    public RuntimeState? Read(GenerationPlace place)
    {
        try
        {
            if (!File.Exists(PathOf(place))) return null;
            RuntimeState? state = OwnJson.Read(File.ReadAllBytes(PathOf(place)), RuntimeStateJson.Default.RuntimeState);
            return state?.Settings.Values.All(s => s is not null && s.Values.All(v => v is not null)) == false ? throw new JsonException("a setting has no value") : state;
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot read what generation {place.Number} was like, {PathOf(place)}: {e.Message}", e);
        }
    }

    public void Save(GenerationPlace place, RuntimeState state) =>
        AtomicFile.Write(PathOf(place), JsonSerializer.SerializeToUtf8Bytes(state, RuntimeStateJson.Default.RuntimeState));
}

/// <summary>Makes changes on the standby.</summary>
public static partial class RuntimeCarry
{
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(10);
    private const int LongestAnswer = 1024 * 1024;

    /// <summary>What HAProxy refuses comes back with its reason; the rest is made.</summary>
    public static async Task<ImmutableArray<RuntimeChange>> MakeAsync(
        AdminSocket standby, IEnumerable<string> undone, IReadOnlyList<RuntimeChange> changes, CancellationToken stop)
    {
        string[] first = [.. undone];
        string[] answers = await AdminBatch.RunAsync(
            standby.Path, [.. first, .. changes.SelectMany(c => c.Commands)], s_silence, LongestAnswer, stop);
        var result = ImmutableArray.CreateBuilder<RuntimeChange>(changes.Count);
        int at = first.Length;
        foreach (RuntimeChange change in changes)
        {
            string[] refused = [.. answers.Skip(at).Take(change.Commands.Length).Select(a => a.Trim()).Where(a => !Done().IsMatch(a))];
            at += change.Commands.Length;
            result.Add(refused.Length == 0 ? change : change with { Why = Refusal(change, refused) });
        }
        return result.ToImmutable();
    }

    private static string Refusal(RuntimeChange change, string[] refused)
    {
        string said = refused[0].Split('\n')[0].TrimEnd('.');
        return change.Commands.Length == 1
            ? $"HAProxy refused it: {said}"
            : $"HAProxy refused {refused.Length} of {change.Commands.Length} commands: {said}";
    }

    /// <summary>
    /// What HAProxy answers to a command that it has carried out (src/server.c, src/proxy.c, src/ssl_sock.c); most say nothing.
    /// </summary>
    [GeneratedRegex("^$|changed from|changed its FQDN|no need to change|nothing changed|setting updated|TLS ticket key updated|Server deleted"
        + "|sockets are already|was already shut down")]
    private static partial Regex Done();
}
