using System.Text.Json.Nodes;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>What a power cut, a full disk or a hand may leave of the state directory: connections and the pair go on.</summary>
public sealed class LostStateTests
{
    private const string State = "state/pairs/edge/state.json";

    [Fact(Timeout = 240_000)]
    public async Task Whatever_is_missing_or_cut_off_connections_go_on_and_the_pair_is_known_again()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Drain = "{ deadline: 1h }" });
        string beginning = File.ReadAllText(pair.Files[State]);
        await using LoadRun load = await StartedAsync(pair.Load(300)), local = await StartedAsync(pair.LocalLoad(50));
        HeldConnection old = await pair.HoldAsync();
        await pair.FlipByEditAsync(Config("v2"));
        await pair.UntilAsync(s => s is { State: "steady", Retired.Length: 1 }, "generation 1 should drain");
        HeldConnection young = await pair.HoldAsync();
        string label = "v2";

        (string What, Action Damage, string? Says)[] damages =
        [
            ("the state is gone", () => File.Delete(pair.Files[State]), "its saved state is gone"),
            ("the state is empty", () => Cut(pair, State, 0), "cannot read .*state.json"),
            ("the state is cut off", () => Cut(pair, State, 0.6), "it is kept as .*state.json.broken"),
            ("the state is another file's text", () => pair.Files.Write(State, "0\n"), "cannot read .*state.json"),
            ("the state says nothing", () => pair.Files.Write(State, "{}"), "it is not a pair's state"),
            ("the state is the one of the beginning", () => pair.Files.Write(State, beginning), "its saved state knows of no generation after 1"),
            ("the state was being written", () => pair.Files.Write("state/pairs/edge/.state.json.new", "{ \"format"), null),
            ("the history is cut off", () => Cut(pair, "state/pairs/edge/history.jsonl", 0.8), null),
            ("the history is gone", () => File.Delete(pair.Files["state/pairs/edge/history.jsonl"]), null),
            ("the numbers of the pairs are cut off", () => Cut(pair, "state/pairs.json", 0.5), "cannot read .*pairs.json"),
            ("the numbers of the pairs are gone", () => File.Delete(pair.Files["state/pairs.json"]), null),
            ("every generation's files are cut off", () =>
            {
                foreach (string file in Directory.GetFiles(pair.Files["state/pairs/edge/generations"])) Cut(file, 0.5);
            }, null),
            ("the drains are cut off", () =>
            {
                foreach (string file in Directory.GetFiles(pair.Files["state/pairs/edge/drains"])) Cut(file, 0.5);
            }, null),
            ("an adoption that never was", () => pair.Files.Write("state/pairs/edge/adoption.json", "{\"hapr"), null),
            ("all of it is gone", () => Directory.Delete(pair.Files["state"], recursive: true), "its saved state is gone"),
        ];
        int draining = 1; // from the first change on the one with the second connection as well
        foreach (var (what, damage, says) in damages)
        {
            PairStatus before = await pair.UntilAsync(s => s.State == "steady" && s.Retired.Length == draining, what);
            draining = 2;
            await pair.EndDaemonAsync(Kill);
            damage();
            pair.StartDaemon();
            PairStatus after = await pair.UntilAsync(s => s.State == "steady", what);
            Assert.True((before.Active!.Pid, before.Active.Number) == (after.Active!.Pid, after.Active.Number), $"{what}: {after}\n{pair.DaemonLog}");
            Assert.Equal(before.Active.Number, after.Redirect.Generation);
            Assert.Equal(before.Retired.Select(r => r.Pid), after.Retired.Select(r => r.Pid));
            Assert.Null(after.Fault);
            if (says is not null) await pair.SaysAsync(says);
            Assert.True(await old.EchoesAsync() && await young.EchoesAsync(), what);
            Assert.Equal(label, await pair.ServedByAsync());
            // Whatever was lost, nothing is in the way of the next change; asked where something was.
            if (says is null) continue;
            PairStatus next = await pair.FlipByEditAsync(Config(label = what.Replace(' ', '-').Replace("'", "", StringComparison.Ordinal)));
            Assert.True(next.Active!.Number > after.Active.Number, what);
        }
        Assert.Equal("v1", old.ServedBy);
        await Eventually.True(() => pair.HaproxyPids().Length == 3, Patience, () => $"HAProxys left: {string.Join(' ', pair.HaproxyPids())}");
        old.Dispose();
        young.Dispose();
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "all should drain");
        await PassedAsync(load);
        await PassedAsync(local);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_state_of_a_newer_version_is_left_alone_and_refused_with_the_way_out()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(200));
        await pair.EndDaemonAsync(Kill);
        string saved = File.ReadAllText(pair.Files[State]);
        JsonObject newer = JsonNode.Parse(saved)!.AsObject();
        newer["format"] = 2;
        newer["phase"] = new JsonObject { ["phase"] = "dreaming" };
        pair.Files.Write(State, newer.ToJsonString());
        pair.StartDaemon();
        await pair.DaemonIsGoneAsync();
        await pair.SaysAsync("a newer version has saved it .format 2, this one knows 1.; nothing was changed");
        Assert.Equal(newer.ToJsonString(), File.ReadAllText(pair.Files[State]));
        File.Move(pair.Files[State], pair.Files["newer.json"]);
        pair.StartDaemon();
        Assert.Equal(1, (await pair.UntilAsync(s => s.State == "steady", "it is made again from what is there")).Active!.Number);
        await PassedAsync(load);
    }

    private static void Cut(PairUnderTest pair, string name, double part) => Cut(pair.Files[name], part);

    private static void Cut(string path, double part)
    {
        using var file = new FileStream(path, FileMode.Open);
        file.SetLength((long)(file.Length * part));
    }
}
