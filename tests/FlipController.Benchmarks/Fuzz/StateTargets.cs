using System.Collections.Immutable;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Haproxy.Runtime;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;

namespace FlipController.Fuzz;

/// <summary>Files of ours that are read back: a power cut, a full disk or a hand may have been at them.</summary>
internal sealed class StateTargets : IDisposable
{
    private const string Pair = "edge";

    private static readonly DateTimeOffset s_then = new(2026, 11, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly Generation s_active = Made(7, Slot.Green), s_previous = Made(6, Slot.Blue);
    private static readonly FlipWish s_wish = new(FlipTrigger.Operator, "why", true, "abc", 3, [1, 2], new ChosenBinary("/opt/haproxy", "haproxy"));
    private static readonly FlipRun s_run = new(4, s_wish, 8, Slot.Blue, 7, s_then);
    private static readonly FlipRecord s_flip = new(4, "files", 6, 7, "done", s_then, 812, null, "a \"reason\"", null, 3, ["a"], ["b"]);

    private readonly TempDir _directory = new();
    private readonly PairStore _store;
    private readonly DrainLog _drains;

    public StateTargets()
    {
        _store = new PairStore(_directory.Path, Pair);
        _drains = new DrainLog(_directory.Path, Pair);
    }

    public void Dispose() => _directory.Dispose();

    private string At(string name) => Path.Combine(_directory.Path, "pairs", Pair, name);

    private static Generation Made(int number, Slot slot) => new(
        number, slot, 4000 + number, 123456, "0a0b", "abc", "def", s_then, [new ServicePort(new Service(System.Net.IPAddress.Any, 80), 21000)], number, "2.6.12", "haproxy",
        [new Service(System.Net.IPAddress.Loopback, 81)]);

    public IEnumerable<FuzzTarget> All()
    {
        PairState steady = PairState.Initial(Pair) with
        {
            LastNumber = 8, LastFlipId = 4, Active = s_active, Retired = [new RetiredGeneration(s_previous, s_then, s_then)], LastFlip = s_flip, LastGood = 7, BeforeLast = 6,
            Phase = new Steady(), Drain = new DrainOrder(1, new DrainWish(Slot.Blue, null, TimeSpan.FromMinutes(1), true, false, null, [9]), [6], s_then),
        };
        PairState[] states =
        [
            steady, steady with { Phase = new Preparing(s_run, new UndoWindow(s_run, s_previous, s_then)), Pending = s_wish },
            steady with { Phase = new Switching(s_run, Made(8, Slot.Blue), true, new RuntimeFate(["a"], null)) }, steady with { Phase = new Watching(new UndoWindow(s_run, s_previous, s_then)) },
            steady with { Phase = new Returning(s_run, s_previous, "returned", "it is worse", [5], false, true) },
            steady with { Phase = new Releasing(new ReleaseRun(5, null, [3], 7, s_then), null, true), HeldSlot = Slot.Green },
        ];
        yield return new("state.json", 30, [.. states.Select(Saved)], content =>
        {
            File.WriteAllBytes(At("state.json"), content);
            PairState? state;
            try
            {
                state = _store.Read(out _);
            }
            catch (FlipException)
            {
                return false; // a newer version's
            }
            if (state is null) return false;
            // Whatever is taken must carry the machine on.
            foreach (ImmutableHashSet<int> alive in new ImmutableHashSet<int>[] { [.. state.Generations.Select(g => g.Number)], [] })
                if (PairMachine.Decide(state, new Restarted(s_then, alive, state.Active?.Number, 4)) is Next next)
                    _ = JsonSerializer.SerializeToUtf8Bytes(next.State, PairStateJson.Default.PairState).Length + next.State.ToString().Length + next.Effects.Sum(e => e.ToString().Length);
            return true;
        });
        byte[] history = Written(() => { _store.Append(s_flip); _store.Append(s_flip with { Id = 5, Outcome = "failed", Error = "no" }); }, At("history.jsonl"));
        yield return new("history.jsonl", 20, [history], content =>
        {
            File.WriteAllBytes(At("history.jsonl"), content);
            ImmutableArray<FlipRecord> flips = _store.History();
            FuzzTargets.Demand(flips.All(f => f.Outcome is not null && f.Trigger is not null), "a flip without an outcome");
            return flips.Length > 0;
        });
        var unmanaged = new UnmanagedHaproxy(new ProcessIdentity(12, 34, "b"), [new ProcessIdentity(13, 35, "b")], "haproxy.service", "/usr/sbin/haproxy", ["-f", "/a"], "/", ["A=b"], 0, false);
        byte[] adoption = Written(() => _store.SaveAdoption(new Adoption(unmanaged, true, null, [new Service(System.Net.IPAddress.Any, 80)])), At("adoption.json"));
        yield return new("adoption.json", 20, [adoption], content =>
        {
            File.WriteAllBytes(At("adoption.json"), content);
            if (_store.ReadAdoption() is not { } read) return false;
            _ = read.Haproxy?.ToString().Length + read.Services.Length + read.Haproxy?.IsLike(unmanaged).GetHashCode() + read.Haproxy?.Environment.Length;
            return true;
        });
        byte[] snapshot = Written(() => _store.SaveSnapshot(7, new Snapshot([new SnapshotFile("/etc/h.cfg", [1, 2, 3])], "a", "b", [new SnapshotFile("/e", [4])])), At("generations/7.json"));
        yield return new("snapshot", 20, [snapshot], content =>
        {
            File.WriteAllBytes(At("generations/7.json"), content);
            if (_store.ReadSnapshot(7) is not { } read) return false;
            _ = read.Files.Sum(f => f.Path.Length + f.Content.Length) + read.EnvironmentFiles?.Sum(f => f.Path.Length + f.Content.Length) + read.ConfigSha256.Length + read.ContentSha256.Length;
            return true;
        });
        byte[] drain = Written(() => _drains.Save(new DrainCurve(Pair, 7, "blue", 4, s_then, null, 0, [new DrainSample(0.5, 3)], [new DrainMark(1, "retired", "told")])), At("drains/7.json"));
        yield return new("drain-curve", 20, [drain], content =>
        {
            File.WriteAllBytes(At("drains/7.json"), content);
            if (_drains.Read(7) is not { } read) return false;
            _ = read.Samples.Length + read.Marks.Sum(m => m.Kind.Length + m.Text.Length) + read.Slot.Length + _drains.All().Length;
            return true;
        });
        yield return new("pairs.json", 8, FuzzTargets.Bytes("{\"edge\": 1, \"mail\": 2}"), content =>
        {
            string path = _directory["pairs.json"];
            File.WriteAllBytes(path, content);
            bool told = false;
            IReadOnlyDictionary<string, int> indexes = PairIndexes.Assign(_directory.Path, [], () => new Dictionary<string, int>(), _ => told = true);
            FuzzTargets.Demand(indexes.Values.All(i => i > 0), "a pair's number is none");
            return !told;
        });
        var place = new GenerationPlace(_directory["run"], Pair, 7);
        Directory.CreateDirectory(place.Directory);
        var note = new GenerationNote(1, s_active);
        byte[] noted = Written(() => note.Write(place), Path.Combine(place.Directory, "generation.json"));
        yield return new("generation.json", 20, [noted], content =>
        {
            File.WriteAllBytes(Path.Combine(place.Directory, "generation.json"), content);
            return note.IsIn(place) | GenerationNote.Living(place.Runtime, Pair).Length > 0;
        });
        var settings = ImmutableDictionary<string, ImmutableDictionary<string, string>>.Empty.Add("server app/s1", ImmutableDictionary<string, string>.Empty.Add("state", "maint").Add("weight", "1"));
        var runtime = new RuntimeState(settings, [new PatternSet(PatternKind.Map, 1, "/etc/a.map", "a map", ["a b"]), new PatternSet(PatternKind.Acl, 2, null, "an acl", null)]);
        byte[] baseline = Written(() => RuntimeBaseline.Files.Save(place, runtime), Path.Combine(place.Directory, "runtime-baseline.json"));
        yield return new("runtime-baseline.json", 20, [baseline], content =>
        {
            File.WriteAllBytes(Path.Combine(place.Directory, "runtime-baseline.json"), content);
            try
            {
                if (RuntimeBaseline.Files.Read(place) is not { } read) return false;
                _ = RuntimeChanges.Between(read.CorrectedBy(runtime), runtime).Length + RuntimeChanges.Since(read, runtime, read).Length;
                return true;
            }
            catch (FlipException)
            {
                return false;
            }
        });
    }

    private byte[] Saved(PairState state) => Written(() => _store.Save(state), At("state.json"));

    private static byte[] Written(Action write, string path)
    {
        write();
        return File.ReadAllBytes(path);
    }
}
