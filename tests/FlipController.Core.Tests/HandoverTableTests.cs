using System.Text.RegularExpressions;
using FlipController.Core.Handover;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Core.Tests;

/// <summary>What README.md says of a handover's phases, against the machine's own ways.</summary>
public sealed partial class HandoverTableTests
{
    private const string Begin = "<!-- handover phases -->\n", End = "<!-- end of handover phases -->";
    private static readonly DateTimeOffset s_noon = new(2026, 1, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly HandoverWish s_wish = new(TimeSpan.FromMinutes(10), 0, TimeSpan.FromMinutes(5));

    /// <summary>Steps of time at which something becomes due: at once, a quiet time, the usual move, the peer's patience, every deadline.</summary>
    private static readonly double[] s_seconds = [0, 4, 11, 31, 601];

    [Fact]
    public void The_table_names_every_phase_and_every_one_that_can_follow_it()
    {
        Dictionary<HandoverPhase, SortedSet<HandoverPhase>> ways = Ways();
        string[] rows = [.. Section().Split('\n').Where(l => l.StartsWith("| `", StringComparison.Ordinal))];
        Assert.Equal(Enum.GetValues<HandoverPhase>().Select(Row), rows.Select(r => (Phase: Cells(r)[0], Next: Cells(r)[^1])));

        (string, string) Row(HandoverPhase phase) => (Ticked(phase), string.Join(", ", ways[phase].Select(Ticked)));
    }

    [Fact]
    public void The_drawing_names_every_phase_and_no_way_that_there_is_not()
    {
        Dictionary<HandoverPhase, SortedSet<HandoverPhase>> ways = Ways();
        string drawing = Drawing().Match(Section()) is { Success: true } found ? found.Groups[1].Value : "";
        foreach (HandoverPhase phase in ways.Keys) Assert.Matches($@"\b{HandoverMachine.Name(phase)}\b", drawing);
        (string From, string To)[] drawn = [.. Arrow().Matches(drawing).Select(a => (a.Groups[1].Value, a.Groups[2].Value))];
        Assert.NotEmpty(drawn);
        foreach ((string from, string to) in drawn)
            Assert.True(Enum.TryParse(from, ignoreCase: true, out HandoverPhase at) && Enum.TryParse(to, ignoreCase: true, out HandoverPhase next) && ways[at].Contains(next),
                $"{from} -> {to} is drawn, and is no way of the machine's");
    }

    /// <summary>Every state that can be reached, but for its times and words, with everything that may happen in it.</summary>
    private static Dictionary<HandoverPhase, SortedSet<HandoverPhase>> Ways()
    {
        var ways = Enum.GetValues<HandoverPhase>().ToDictionary(p => p, _ => new SortedSet<HandoverPhase>());
        var seen = new HashSet<object>();
        var open = new Queue<(HandoverState State, DateTimeOffset Now)>([(HandoverState.Initial, s_noon)]);
        while (open.TryDequeue(out var at))
        {
            if (!seen.Add((at.State.Phase, at.State.IsReturn, at.State.IsRecalled, at.State.IsLowered, at.State.PeerLostAt is null))) continue;
            foreach (HandoverEvent happened in Events(at.Now))
            {
                HandoverState next = HandoverMachine.Decide(at.State, happened).Next;
                if (next.Phase != at.State.Phase) ways[at.State.Phase].Add(next.Phase);
                open.Enqueue((next, happened.At));
            }
        }
        return ways;
    }

    private static IEnumerable<HandoverEvent> Events(DateTimeOffset since)
    {
        bool[] either = [false, true];
        PeerSays?[] peers =
        [
            null, new PeerSays("not now", false, 1, false),
            .. from vips in either from connections in (int[])[0, 1] from gives in either select new PeerSays(null, vips, connections, gives),
        ];
        foreach (DateTimeOffset at in s_seconds.Select(since.AddSeconds))
        {
            yield return new VipsCome(at);
            yield return new NotPrepared(at, "no room");
            foreach (PeerSays? peer in peers)
                foreach (int left in (int[])[0, 1])
                    foreach (bool vips in either)
                        foreach (bool quiet in either)
                        {
                            var look = new HandoverLook(peer, null, left, vips, quiet ? HandoverMachine.QuietTime : TimeSpan.Zero);
                            yield return new Looked(at, look);
                            yield return new CancelWanted(at, look);
                            yield return new FinishWanted(at, look);
                            foreach (bool asReturn in either) yield return new StartWanted(at, "h", s_wish, look, asReturn);
                        }
        }
    }

    private static string Section()
    {
        string text = File.ReadAllText(Path.Combine(Repository.Root, "README.md"));
        int from = text.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length, to = text.IndexOf(End, StringComparison.Ordinal);
        Assert.True(from >= Begin.Length && to >= from, "README.md has nothing between the two marks of a handover's phases");
        return text[from..to];
    }

    private static string[] Cells(string row) => [.. row.Trim().Trim('|').Split('|').Select(c => c.Trim())];

    private static string Ticked(HandoverPhase phase) => $"`{HandoverMachine.Name(phase)}`";

    [GeneratedRegex(@"```text\n(.*?)```", RegexOptions.Singleline)]
    private static partial Regex Drawing();

    /// <summary>Of <c>a ──► b ── why ─► c</c> both; what hangs below a line is drawn alone.</summary>
    [GeneratedRegex(@"(\w+) ──(?: [^─►\n]+ ─)?► (?=(\w+))")]
    private static partial Regex Arrow();
}
