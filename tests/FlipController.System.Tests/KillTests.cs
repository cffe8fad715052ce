using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>
/// The daemon is killed anywhere. FLIP_KILLS=N: so many kills instead of a few; FLIP_SEED=N: the same ones again, as far as they are ours
/// to choose.
/// </summary>
[Collection(Alone)]
public sealed partial class KillTests
{
    private const int Limit = 3_600_000;

    /// <summary>The states a pair that serves goes through; the others have a test of their own.</summary>
    private static readonly string[] s_underway = ["preparing", "gating", "switching", "watching", "steady", "returning"];

    private const string Haproxy = "/usr/sbin/haproxy";
    private static readonly bool s_measured = int.TryParse(Environment.GetEnvironmentVariable("FLIP_KILLS"), out s_kills);
    private static readonly int s_kills;

    private readonly int _seed = int.TryParse(Environment.GetEnvironmentVariable("FLIP_SEED"), out int seed) ? seed : Random.Shared.Next();

    [Fact(Timeout = Limit)]
    public Task Killed_at_any_instant_it_goes_on_where_it_was() => KillsAsync(null);

    /// <summary>As a power cut may leave the state directory, but for the HAProxys, which no power cut leaves.</summary>
    [Fact(Timeout = Limit)]
    public Task Killed_with_its_files_cut_off_or_gone_it_makes_them_again() => KillsAsync((pair, random) => new Damages(pair, random).Damage);

    private async Task KillsAsync(Func<PairUnderTest, Random, Func<string>>? damaging)
    {
        int kills = s_measured ? s_kills : damaging is null ? s_underway.Length : 3;
        var random = new Random(_seed);
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Drain = "{ deadline: 2h, max_retired: 64 }" });
        Func<string>? damage = damaging?.Invoke(pair, random);
        await using LoadRun load = await StartedAsync(pair.Load(400) with { Duration = TimeSpan.FromMilliseconds(Limit) });
        await using LoadRun open = await StartedAsync(pair.Load(200) with
        {
            Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = 200, Expect = Expectation.Any, Duration = TimeSpan.FromMilliseconds(Limit),
        });
        Dictionary<string, string> labels = new() { [Sha(Config("v0"))] = "v0" };
        await pair.FlipByEditAsync(Config("v0"));
        List<HeldConnection> held = [];
        SortedDictionary<string, int> found = new(StringComparer.Ordinal);
        SortedDictionary<string, int> damaged = new(StringComparer.Ordinal);
        (double Seconds, string Told, string Log) longest = default;
        // What was lost is not known to have been under way.
        bool IsMissing() => damage is null && s_underway.Except(found.Keys).Any();
        for (int i = 1; i <= kills || (IsMissing() && i <= kills + 20); i++)
        {
            if (i % 10 == 1) held.Add(await pair.HoldAsync(pair.Services[i / 10 % 2]));
            string label = $"v{i}", text = Config(label);
            PairStatus start = await pair.StatusAsync();
            labels[Sha(text)] = label;
            // First each state until it is hit, later those as well that nobody chose.
            string? aim = i <= s_underway.Length ? s_underway[^i]
                : IsMissing() ? s_underway.Except(found.Keys).First()
                : random.Next(3) > 0 ? s_underway[random.Next(s_underway.Length)] : null;
            bool returns = aim == "returning" || random.Next(5) == 0;
            await KillAsync(pair, load, text, (Edit)random.Next(3), aim, returns, random);
            string? harm = damage?.Invoke();
            if (harm is not null) damaged[harm] = damaged.GetValueOrDefault(harm) + 1;
            long restarted = Stopwatch.GetTimestamp();
            pair.StartDaemon();
            string state = await FoundAsync(pair);
            found[state] = found.GetValueOrDefault(state) + 1;
            string told = $"kill {i} of seed {_seed}, while {state}, damage: {harm ?? "none"}";
            string serves = await TrueStatusAsync(pair, labels, told);
            if (!returns)
            {
                await Eventually.True(async () => serves == label || (serves = await pair.ServedByAsync()) == label, Patience,
                    () => $"{told}: {label} should serve, not {serves}\n{pair.DaemonLog}");
                double seconds = Stopwatch.GetElapsedTime(restarted).TotalSeconds;
                if (seconds > longest.Seconds) longest = (seconds, told, pair.DaemonLog);
                await TrueStatusAsync(pair, labels, told);
            }
            else
            {
                // Gone back or not, it is one of the two, and says which. After the undo window the way back is a flip of its own.
                await pair.UntilAsync(s => s is { State: "steady" or "watching", Active: { } a } && (a.ConfigSha256 == Sha(text)
                    || (a.ConfigSha256 == start.Active!.ConfigSha256 && s.LastFlip is { } back && back.Id > start.LastFlip!.Id
                        && (back.Outcome == "rolled-back" || back is { Trigger: "rollback", Outcome: "done" }))), told);
            }
            foreach (HeldConnection connection in held) Assert.True(await connection.EchoesAsync(), $"{told}\n{pair.DaemonLog}");
        }
        Show($"seed {_seed}: killed while {string.Join(", ", found.Select(f => $"{f.Key} ({f.Value})"))}");
        if (damaged.Count > 0) Show($"damages: {string.Join(", ", damaged.Select(d => $"{d.Key} ({d.Value})"))}");
        Show($"the last saved configuration was live {longest.Seconds:0.00} s after the start at most ({longest.Told})");
        Assert.False(IsMissing());
        LoadResult stayed = await PassedAsync(open);
        Assert.Equal(200, stayed.Connections);
        await PassedAsync(load);
        Assert.True(longest.Seconds < (s_measured ? 5 : Patience.TotalSeconds), $"{longest.Seconds} s, {longest.Told}\n{longest.Log}");
        foreach (HeldConnection connection in held) connection.Dispose();
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "all should drain");
        await pair.OneIsLeftAsync();
    }

    [Fact(Timeout = 180_000)]
    public async Task Killed_where_nobody_of_the_pair_serves_it_goes_on_from_there()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml { Haproxy = ", binary: {dir}/haproxy", Drain = "{ deadline: 10m }" }, p => File.Copy(Haproxy, p.Files["haproxy"]));
        List<string> found = [];
        async Task RestartedAsync(string? aim)
        {
            await (aim is null ? pair.EndDaemonAsync(Kill) : pair.DaemonIsGoneAsync());
            pair.StartDaemon();
            found.Add(await FoundAsync(pair));
            if (aim is not null) Assert.Equal(aim, found[^1]);
        }

        async Task NothingRunsAsync()
        {
            await pair.EndDaemonAsync(Kill);
            foreach (int pid in pair.HaproxyPids()) Signals.Send(pid, Kill);
            await Eventually.True(() => pair.HaproxyPids().Length == 0, Patience, () => "HAProxys left");
            Directory.Delete(pair.Files["run"], recursive: true);
        }

        // A reboot leaves the state directory. Its rule comes when somebody is proven, and with it whoever it leads.
        await NothingRunsAsync();
        pair.Nets.Server.Exec("nft", "delete", "table", "inet", "flipcontroller");
        pair.StartDaemon();
        PairStatus led = await pair.UntilAsync(s => s.Redirect.Generation is not null, "the rule should come");
        Assert.Equal(2, led.Redirect.Generation);
        // A status has the rule as it was an instant after the state.
        led = await pair.StatusAsync();
        Assert.True(led.State is "switching" or "steady", $"{led}");
        await pair.SaysAsync("gating . GatePassed -> switching");
        await pair.UntilAsync(s => s.State == "steady", "it should serve");

        // Before anything is saved.
        while (!found.Contains("cold") && found.Count < 10)
        {
            await NothingRunsAsync();
            Directory.Delete(pair.Files["state"], recursive: true);
            pair.StartDaemon();
            await Eventually.True(() => Directory.Exists(pair.Files["state"]), Patience, () => pair.DaemonLog);
            await RestartedAsync(null);
            await pair.UntilAsync(s => s.State == "steady", "it should serve");
        }

        // Nothing can be started.
        File.Move(pair.Files["haproxy"], pair.Files["elsewhere"]);
        Signals.Send((await pair.StatusAsync()).Active!.Pid, Kill);
        await pair.UntilAsync(s => s.State == "faulted", "nothing lives");
        Signals.Send(pair.DaemonPid, Kill);
        await RestartedAsync("faulted");
        File.Move(pair.Files["elsewhere"], pair.Files["haproxy"]);
        await pair.UntilAsync(s => s.State == "steady", "it should serve again by itself");
        Assert.Equal("v1", await pair.ServedByAsync());

        // The rule is gone when it starts, and it is killed as it sets it again.
        await pair.EndDaemonAsync(Kill);
        pair.Nets.Server.Exec("nft", "flush", "chain", "inet", "flipcontroller", "pair-edge");
        using (var over = new CancellationTokenSource(Patience))
        {
            Task<bool> shot = ShotInAsync(pair, "restoring", TimeSpan.Zero, over.Token);
            pair.StartDaemon();
            Assert.True(await shot, pair.DaemonLog);
        }
        await RestartedAsync("restoring");
        await pair.UntilAsync(s => s is { State: "steady", Redirect.Generation: not null }, "the rule should be back");
        Assert.Equal("v1", await pair.ServedByAsync());

        // It gives NEW connections to another HAProxy.
        await using LoadRun load = await StartedAsync(pair.Load(300));
        HeldConnection held = await pair.HoldAsync();
        NetnsProcess haproxy = pair.Nets.Server.Start(Haproxy, "-D", "-f", pair.Files.Write("unmanaged.cfg", Config("unmanaged")));
        Assert.Equal(0, await haproxy.Exit(Patience));
        using (var over = new CancellationTokenSource(Patience))
        {
            Task<bool> shot = ShotInAsync(pair, "releasing", TimeSpan.FromMilliseconds(5), over.Token);
            Task<Said> asked = pair.FlipctlAsync("release", PairUnderTest.Name);
            Assert.True(await shot, pair.DaemonLog);
            await asked;
        }
        await RestartedAsync("releasing");
        await pair.UntilAsync(s => s.State == "released", "what was asked for goes on");
        Signals.Send(pair.DaemonPid, Kill);
        await RestartedAsync("released");
        Assert.Equal("unmanaged", await pair.ServedByAsync());
        Assert.Null((await pair.StatusAsync()).Redirect.Generation);
        Said back = await pair.FlipctlAsync("adopt", PairUnderTest.Name, "--stop");
        Assert.True(back.ExitCode == 0, back.Error);
        Assert.Equal("v1", await pair.ServedByAsync());
        await held.StaysAsync();
        await PassedAsync(load);
        Show($"killed while {string.Join(", ", found)}");
        Assert.Contains("cold", found);
    }

    /// <summary>Saves the text, lets the pair go on, and kills the daemon in the state aimed at, or anywhere.</summary>
    private static async Task KillAsync(PairUnderTest pair, LoadRun load, string text, Edit edit, string? aim, bool returns, Random random)
    {
        using var over = new CancellationTokenSource();
        // What lasts a millisecond is killed within it; of what lasts longer the load is the clock.
        bool isShort = aim is "switching" or "returning";
        var later = TimeSpan.FromMicroseconds(isShort ? random.Next(1500) : random.Next(100_000));
        Task<bool> shot = aim is null ? Task.FromResult(false) : ShotInAsync(pair, aim, later, over.Token);
        pair.Write(text, edit);
        Task back = returns ? BackAsync(pair, text) : Task.CompletedTask;
        if (aim is not null && await Task.WhenAny(shot, SettledAsync(pair, text, back)) == shot && await shot)
        {
            await pair.DaemonIsGoneAsync();
            await back; // or it would ask the next one
            return;
        }
        await over.CancelAsync();
        await shot;
        if (aim is null)
        {
            long asked = load.Now.Requests, wait = random.Next(400);
            await Eventually.True(() => load.Now.Requests >= asked + wait, Patience, "the load goes on");
        }
        await pair.EndDaemonAsync(Kill);
        await back;
    }

    /// <summary>Until it serves and rests: what was aimed at has passed by; or until the daemon is shot.</summary>
    private static async Task SettledAsync(PairUnderTest pair, string text, Task back)
    {
        try
        {
            await pair.UntilAsync(s => back.IsCompleted && s.State == "steady" && (s.Active!.ConfigSha256 == Sha(text) || s.LastFlip!.Outcome == "rolled-back"), "it should settle");
        }
        catch (Exception e) when (IsOfTheDead(e))
        {
        }
    }

    /// <summary>A rollback as soon as there is something to go back from; or until the daemon is shot.</summary>
    private static async Task BackAsync(PairUnderTest pair, string text)
    {
        try
        {
            await pair.UntilAsync(s => s.State == "watching" && s.Active?.ConfigSha256 == Sha(text), "the undo window should open");
            await pair.PostAsync("rollback", new RollbackRequest(), WireJson.Default.RollbackRequest);
        }
        catch (Exception e) when (IsOfTheDead(e))
        {
        }
    }

    private static bool IsOfTheDead(Exception e) => e is HttpRequestException or InvalidOperationException;

    /// <summary>Kills the daemon so much later than it has saved that it is in this state; the intent is on disk before anything is done.</summary>
    private static Task<bool> ShotInAsync(PairUnderTest pair, string state, TimeSpan later, CancellationToken over) => Task.Factory.StartNew(() =>
    {
        string file = pair.Files["state/pairs/edge/state.json"];
        string? was = SavedPhase().Match(File.ReadAllText(file)).Groups[1].Value;
        bool left = was != state;
        while (!over.IsCancellationRequested)
        {
            string now = SavedPhase().Match(File.ReadAllText(file)).Groups[1].Value;
            left |= now != state;
            if (!left || now != state) continue;
            long seen = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(seen) < later) Thread.SpinWait(20);
            pair.SignalDaemon(Kill);
            return true;
        }
        return false;
    }, TaskCreationOptions.LongRunning);

    /// <summary>In what state the daemon found the pair, by its own word.</summary>
    private static async Task<string> FoundAsync(PairUnderTest pair)
    {
        await pair.SaysAsync("was ([a-z]+), found");
        return Said().Match(pair.DaemonLog).Groups[1].Value;
    }

    /// <summary>What it says of itself is so: who is active lives, the rule names it, and NEW connections get its configuration.</summary>
    /// <returns>Who serves NEW connections.</returns>
    private static async Task<string> TrueStatusAsync(PairUnderTest pair, Dictionary<string, string> labels, string told)
    {
        string serves = "";
        PairStatus? before = null, after = null;
        await Eventually.True(async () =>
        {
            before = await pair.UntilAsync(s => s.Active is not null, told);
            serves = await pair.ServedByAsync();
            after = await pair.StatusAsync();
            return before.Active!.Number == after.Active?.Number && after.Active.Number == after.Redirect.Generation && before.Redirect.Generation == after.Redirect.Generation;
        }, Patience, () => $"{told}: {before} {serves} {after}\n{pair.DaemonLog}");
        Assert.True(labels[after!.Active!.ConfigSha256] == serves, $"{told}: it says that {labels[after.Active.ConfigSha256]} serves, and it is {serves}\n{pair.DaemonLog}");
        int[] there = pair.HaproxyPids();
        Assert.True(there.Contains(after.Active.Pid), $"{told}: {after}\n{pair.DaemonLog}");
        return serves;
    }

    private static string Sha(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));

    [GeneratedRegex("\"phase\": \\{\\s*\"phase\": \"([a-z]+)\"")]
    private static partial Regex SavedPhase();

    [GeneratedRegex("was ([a-z]+), found")]
    private static partial Regex Said();

    /// <summary>One at a time, chosen by chance.</summary>
    private sealed class Damages(PairUnderTest pair, Random random)
    {
        public string Damage()
        {
            string edge = pair.Files["state/pairs/edge"], run = pair.Files["run"];
            string[] notes = [.. Below(run).Where(f => Path.GetFileName(f) == "generation.json")];
            (string What, string[] Files)[] kinds =
            [
                ("state", [$"{edge}/state.json"]),
                ("pairs", [pair.Files["state/pairs.json"]]),
                ("history", [$"{edge}/history.jsonl"]),
                ("snapshots", Below($"{edge}/generations")),
                ("drains", Below($"{edge}/drains")),
                ("notes", notes),
                ("state and notes", [$"{edge}/state.json", .. notes]),
            ];
            var (what, files) = kinds[random.Next(kinds.Length)];
            // Of what is written anew each time a power cut may leave the next one unfinished beside it.
            int how = random.Next(what is "state" or "pairs" ? 3 : 2);
            foreach (string file in files.Where(File.Exists))
            {
                if (how == 2) File.WriteAllBytes(Path.Combine(Path.GetDirectoryName(file)!, $".{Path.GetFileName(file)}.new"), [.. File.ReadAllBytes(file).Take(random.Next(100))]);
                else if (how == 1) File.Delete(file);
                else
                {
                    using var stream = new FileStream(file, FileMode.Open);
                    stream.SetLength(random.NextInt64(stream.Length));
                }
            }
            return string.Create(CultureInfo.InvariantCulture, $"{what} {(how switch { 0 => "cut off", 1 => "gone", _ => "half written" })}");
        }

        private static string[] Below(string directory) =>
            Directory.Exists(directory) ? Directory.GetFiles(directory, "*", SearchOption.AllDirectories) : [];
    }
}
