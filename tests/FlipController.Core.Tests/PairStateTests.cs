using System.Net;
using System.Text.Json;
using FlipController.Core.Machine;
using Xunit;

namespace FlipController.Core.Tests;

public class PairStateTests
{
    private static readonly DateTimeOffset s_now = DateTimeOffset.UnixEpoch;

    private static Generation Made(int number, Slot slot) => new(
        number, slot, 100 + number, 12345, "boot", "aa", "bb", s_now,
        [new ServicePort(new Service(IPAddress.Any, 80), 21000), new ServicePort(new Service(IPAddress.IPv6Any, 80, V6Only: true), 21001)], number, "2.6.12");

    private static readonly FlipWish s_files = new(FlipTrigger.Files, "haproxy.cfg changed", false, "sha-1", null, []);
    private static readonly FlipRun s_run = new(7, s_files, 2, Slot.Green, 1, s_now);

    [Fact]
    public void A_generation_saved_by_an_older_version_is_read_without_loops()
    {
        PairState saved = PairState.Initial("edge") with { Active = Made(1, Slot.Blue) with { Loops = [new Service(IPAddress.Any, 80)] } };
        string text = JsonSerializer.Serialize(saved, PairStateJson.Default.PairState);
        Assert.Equal([new Service(IPAddress.Any, 80)], JsonSerializer.Deserialize(text, PairStateJson.Default.PairState)!.Active!.Loops!.Value);
        string older = System.Text.RegularExpressions.Regex.Replace(text, @",\s*""loops"": \[[^]]*\]", "");
        Assert.NotEqual(text, older);
        PairState read = JsonSerializer.Deserialize(older, PairStateJson.Default.PairState)!;
        Assert.Null(read.Active!.Loops);
        Assert.Empty(LoopRoute.Of([read.Active], Made(2, Slot.Green)));
    }

    public static TheoryData<string> Phases => [.. Enum.GetNames<PhaseKind>()];

    [Theory, MemberData(nameof(Phases))]
    public void Every_phase_is_read_back_as_it_was_saved(string kind)
    {
        Generation one = Made(1, Slot.Blue), two = Made(2, Slot.Green);
        Phase phase = Enum.Parse<PhaseKind>(kind) switch
        {
            PhaseKind.Cold => new Cold(),
            PhaseKind.Preparing => new Preparing(s_run, new UndoWindow(s_run, one, s_now)),
            PhaseKind.Gating => new Gating(s_run, two),
            PhaseKind.Switching => new Switching(s_run, two, true, new RuntimeFate(["server app/s1 is in maintenance"], null)),
            PhaseKind.Watching => new Watching(new UndoWindow(s_run, one, s_now)),
            PhaseKind.Returning => new Returning(s_run, one, "returned", "worse", [5], true, false),
            PhaseKind.Restoring => new Restoring(true),
            PhaseKind.Steady => new Steady(),
            PhaseKind.Faulted => new Faulted(),
            PhaseKind.Releasing => new Releasing(new ReleaseRun(8, "why", [3], 2, s_now), new UndoWindow(s_run, one, s_now), true),
            PhaseKind.Released => new Released(),
        };
        PairState saved = PairState.Initial("edge") with
        {
            Active = two, Phase = phase, Pending = s_files, Retired = [new RetiredGeneration(one, s_now)], Fault = "why",
            LastFlip = new FlipRecord(7, "files", 1, 2, "done", s_now, 12, new HoldReport("none", 58, 0, 0), null, null, 3),
        };
        string text = JsonSerializer.Serialize(saved, PairStateJson.Default.PairState);
        PairState read = JsonSerializer.Deserialize(text, PairStateJson.Default.PairState)!;
        Assert.Equal(text, JsonSerializer.Serialize(read, PairStateJson.Default.PairState));
        Assert.Equal(phase.GetType(), read.Phase.GetType());
        Assert.Equal(two.Ports, read.Active!.Ports);
    }

    [Fact]
    public void The_newer_wish_wins_and_answers_for_the_older()
    {
        FlipWish older = s_files with { Trigger = FlipTrigger.Operator, ContentSha256 = null, AllowDrop = true, Requests = [1] };
        FlipWish both = older.ReplacedBy(s_files with { Requests = [2], ContentSha256 = "sha-2" });
        Assert.Equal([1, 2], both.Requests);
        Assert.Equal("sha-2", both.ContentSha256);
        Assert.Equal(FlipTrigger.Operator, both.Trigger);
        Assert.True(both.AllowDrop);
    }
}
