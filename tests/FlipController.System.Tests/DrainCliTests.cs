using System.Text.Json;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.FlipctlProcess;

namespace FlipController.SystemTests;

/// <summary>flipctl's verbs for what leaves, as a process; a <see cref="Responder"/> gives the daemon's answers.</summary>
public sealed class DrainCliTests : IDisposable
{
    private const int Limit = 60_000;

    private readonly string _directory = Directory.CreateTempSubdirectory("flipctl").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Theory(Timeout = Limit)]
    [InlineData("drain", "--deadline <D>", "<SLOT|GENERATION>")]
    [InlineData("undrain", "--reason <TEXT>", "<PAIR>")]
    [InlineData("connections", "--sort <idle|age|bytes|peer>", "--networks <V4,V6>")]
    [InlineData("close", "--older <D>", "--force")]
    [InlineData("history", "--plot <FILE>", "<ID>")]
    public async Task Help_shows_the_options_and_examples_that_name_the_verb(string verb, string one, string other)
    {
        Ran help = await FlipctlAsync(verb, "--help");
        Assert.Equal((0, ""), (help.ExitCode, help.Error));
        Assert.Contains(one, help.Output);
        Assert.Contains(other, help.Output);
        string examples = help.Output[help.Output.IndexOf("Examples:\n", StringComparison.Ordinal)..];
        Assert.All(examples.Split('\n', StringSplitOptions.RemoveEmptyEntries).Skip(1), e => Assert.Contains($"flipctl {verb}", e));
        Assert.Matches($@"\n  {verb} ", (await FlipctlAsync("--help")).Output);
    }

    [Theory(Timeout = Limit)]
    [InlineData("drain edge red", "\"red\" is neither blue nor green nor a generation's number")]
    [InlineData("drain edge 0", "\"0\" is neither blue nor green nor a generation's number")]
    [InlineData("drain edge --deadline 5", "--deadline: \"5\" is no duration, which is one number and one unit: 250ms, 30s, 10m, 1h")]
    [InlineData("drain edge --hold-slot", "--hold-slot holds what is named: SLOT or GENERATION is missing")]
    [InlineData("drain edge blue --cancel", "--cancel gives up the drain under way, whatever it empties: beside it only PAIR and --reason mean anything")]
    [InlineData("drain edge --cancel --dry-run", "--cancel gives up the drain under way, whatever it empties: beside it only PAIR and --reason mean anything")]
    [InlineData("drain edge --dry-run --no-wait", "--dry-run begins nothing, so there is nothing --no-wait could leave going")]
    [InlineData("undrain", "Required argument 'PAIR' missing for command: 'undrain'")]
    [InlineData("undrain edge blue", "Unrecognized command or argument 'blue'")]
    [InlineData("connections --watch edge", "--watch: \"edge\" is no duration, which is one number and one unit: 500ms, 2s")]
    [InlineData("connections edge --watch 1ms", "--watch: \"1ms\" must be between 100ms and 1h")]
    [InlineData("connections edge --networks 33,64", "--networks: \"33,64\" is no pair of prefix lengths, 0 to 32 and 0 to 128: 24,64")]
    [InlineData("connections edge --sort name", "Argument 'name' not recognized. Must be one of: 'idle' 'age' 'bytes' 'peer'")]
    [InlineData("connections edge --limit 0", "--limit must be at least 1")]
    [InlineData("connections edge --generation 0", "--generation must be at least 1")]
    [InlineData("close edge", "which connections are to be closed must be said: --peer, --older, --service or --generation")]
    [InlineData("close edge --force", "which connections are to be closed must be said: --peer, --older, --service or --generation")]
    [InlineData("close edge --older soon", "--older: \"soon\" is no duration, which is one number and one unit: 250ms, 30s, 10m, 1h")]
    [InlineData("history --plot x.svg", "--plot x.svg draws how the side that a flip left drained: that flip's ID is missing")]
    [InlineData("history edge --plot x.svg", "--plot x.svg draws how the side that a flip left drained: that flip's ID is missing")]
    [InlineData("history edge 5 --limit 3", "--limit shortens the list of flips, ID shows one; both together mean nothing")]
    [InlineData("history edge 5 --plot - --json", "--plot - and --json both want standard output")]
    public async Task Misuse_is_one_sentence_with_the_rule_and_exit_code_2(string arguments, string rule)
    {
        string[] words = arguments.Split(' ');
        string sentence = $"{words[0]}: {rule}; nothing was done; see `flipctl {words[0]} --help`";
        if (!arguments.EndsWith("--json", StringComparison.Ordinal))
            Assert.Equal(new Ran(2, "", $"flipctl: {sentence}\n"), await FlipctlAsync(words));
        Ran json = await FlipctlAsync([.. words, "--json"]);
        Assert.Equal((2, ""), (json.ExitCode, json.Output));
        Assert.Equal(new ErrorAnswer("usage", sentence), JsonSerializer.Deserialize(json.Error, WireJson.Default.ErrorAnswer));
    }

    [Theory(Timeout = Limit)]
    [InlineData("drain edge")]
    [InlineData("drain edge --cancel")]
    [InlineData("undrain edge")]
    [InlineData("connections edge --watch")]
    [InlineData("close edge --older 1h")]
    [InlineData("history edge 3")]
    public async Task Without_a_daemon_the_exit_code_is_4(string arguments)
    {
        string[] words = arguments.Split(' ');
        Assert.Equal(new Ran(4, "", $"flipctl: {words[0]}: cannot reach the daemon at {Socket}: there is no such socket; nothing was changed; "
            + "is it running (`systemctl status flipcontrollerd`), and is this its socket (--socket)?\n"), await AskAsync(words));
    }

    [Theory(Timeout = Limit)]
    [InlineData("drain edge", "drain", """{"target":null,"deadline":null,"holdSlot":false,"skipUndo":false,"dryRun":false,"reason":null,"wait":true}""")]
    [InlineData("drain edge blue --deadline 10m --hold-slot --no-undo --reason why", "drain",
        """{"target":"blue","deadline":"10m","holdSlot":true,"skipUndo":true,"dryRun":false,"reason":"why","wait":true}""")]
    [InlineData("drain edge 6 --no-wait", "drain",
        """{"target":"6","deadline":null,"holdSlot":false,"skipUndo":false,"dryRun":false,"reason":null,"wait":false}""")]
    [InlineData("drain edge --dry-run", "drain",
        """{"target":null,"deadline":null,"holdSlot":false,"skipUndo":false,"dryRun":true,"reason":null,"wait":false}""")]
    [InlineData("drain edge --cancel --reason why", "drain/cancel", """{"reason":"why"}""")]
    [InlineData("undrain edge", "undrain", """{"reason":null}""")]
    public async Task A_drain_is_asked_for_as_the_contract_says(string arguments, string path, string body)
    {
        var seen = new TaskCompletionSource<Request>();
        using var daemon = new Responder(Socket, request =>
        {
            if (request.Method != "POST") return Reply.Never;
            seen.SetResult(request);
            return Reply.Json(200, new DrainAnswer("edge", Drained()), WireJson.Default.DrainAnswer);
        });
        Assert.Equal((0, ""), await AskAsync(arguments.Split(' ')) is var ran ? (ran.ExitCode, ran.Error) : default);
        Assert.Equal(new Request("POST", $"/v1/pairs/edge/{path}", body), await seen.Task);
        Ran json = await AskJsonAsync(arguments);
        Assert.Equal("edge", JsonSerializer.Deserialize(json.Output, WireJson.Default.DrainAnswer)!.Pair);

        async Task<Ran> AskJsonAsync(string words)
        {
            seen = new TaskCompletionSource<Request>();
            return await AskAsync([.. words.Split(' '), "--json"]);
        }
    }

    [Theory(Timeout = Limit)]
    [InlineData("drain edge", "drained", 0, "edge: blue (generation 6) has no connection and is stopped, after 3m 12s; 4 connections had to be closed\n", "")]
    [InlineData("drain edge", "unchanged", 0, "edge: nothing to drain in blue\n", "")]
    [InlineData("drain edge", "failed", 1, "", "flipctl: edge: drain 3 failed: the gate closed\n")]
    [InlineData("drain edge", "cancelled", 1, "", "flipctl: edge: drain 3 was cancelled after 3m 12s; what was told to stop goes on leaving as configured\n")]
    [InlineData("drain edge --cancel", "cancelled", 0, "edge: drain 3 was cancelled after 3m 12s; what was told to stop goes on leaving as configured\n", "")]
    [InlineData("undrain edge", "undrained", 0, "edge: no slot is held any more\n", "")]
    [InlineData("undrain edge", "unchanged", 0, "edge: no slot is held\n", "")]
    public async Task How_a_drain_ended_is_told_and_is_the_exit_code(string arguments, string outcome, int exitCode, string output, string error)
    {
        var answer = new DrainAnswer("edge", Drained() with { Outcome = outcome, Error = outcome == "failed" ? "the gate closed" : null });
        using var daemon = new Responder(Socket, r => r.Method == "POST" ? Reply.Json(200, answer, WireJson.Default.DrainAnswer) : Reply.Never);
        Assert.Equal(new Ran(exitCode, output, error), await AskAsync(arguments.Split(' ')));
        Ran json = await AskAsync([.. arguments.Split(' '), "--json"]);
        Assert.Equal((exitCode, ""), (json.ExitCode, json.Error));
        Assert.Equal(outcome, JsonSerializer.Deserialize(json.Output, WireJson.Default.DrainAnswer)!.Drain!.Outcome);
    }

    [Fact(Timeout = Limit)]
    public async Task What_is_accepted_and_what_is_only_tried_are_told_so()
    {
        var answer = new DrainAnswer("edge", null);
        using var daemon = new Responder(Socket, _ => Reply.Json(202, answer, WireJson.Default.DrainAnswer));
        Assert.Equal(new Ran(0, "edge: drain accepted; follow it with `flipctl watch edge`\n", ""), await AskAsync("drain", "edge", "--no-wait"));
        answer = new DrainAnswer("edge", null, ["flip to green", "soft stop of generation 6"], "the undo window is left out");
        Assert.Equal(new Ran(0, "edge: a drain now would do this:\n  1. flip to green\n  2. soft stop of generation 6\n  the undo window is left out\n", ""),
            await AskAsync("drain", "edge", "blue", "--dry-run"));
        Ran json = await AskAsync("drain", "edge", "blue", "--dry-run", "--json");
        Assert.Equal(2, JsonSerializer.Deserialize(json.Output, WireJson.Default.DrainAnswer)!.Steps!.Value.Length);
    }

    [Theory(Timeout = Limit)]
    [InlineData(409, "refused", 3)]
    [InlineData(422, "failed", 1)]
    [InlineData(404, "usage", 2)]
    public async Task A_refusal_keeps_the_daemons_words(int status, string code, int exitCode)
    {
        using var daemon = new Responder(Socket, r => r.Path.StartsWith("/v1/events", StringComparison.Ordinal) ? Reply.Never
            : Reply.Json(status, new ErrorAnswer(code, "pair edge: it isn't possible"), WireJson.Default.ErrorAnswer));
        foreach (string arguments in (string[])["drain edge", "drain edge --cancel", "undrain edge", "connections edge", "close edge --older 1h", "history edge 3"])
            Assert.Equal(new Ran(exitCode, "", "flipctl: pair edge: it isn't possible\n"), await AskAsync(arguments.Split(' ')));
    }

    [Fact(Timeout = Limit)]
    public async Task Interrupting_flipctl_leaves_the_drain_going_and_says_so()
    {
        using var posted = new ManualResetEventSlim();
        using var daemon = new Responder(Socket, request =>
        {
            if (request.Method == "POST") posted.Set();
            return Reply.Never;
        });
        Task<Ran> running = EndAsync(Begin(Flipctl, ["--socket", Socket, "drain", "edge"], out int pid));
        await Task.Run(() => posted.Wait(Limit));
        await RunAsync("kill", ["-INT", $"{pid}"]);
        Assert.Equal(new Ran(130, "", "flipctl: drain edge: flipctl was interrupted, but the drain goes on in the daemon; follow it with `flipctl watch edge`, "
            + "give it up with `flipctl drain edge --cancel`\n"), await running);
    }

    [Fact(Timeout = Limit)]
    public async Task Without_a_terminal_a_drain_tells_each_step_and_a_count_each_ten_seconds_on_stderr()
    {
        DateTimeOffset at = DateTimeOffset.Now;
        PairNotice[] notices =
        [
            new(at, "edge", "state", "gating", "generation 7 is being proven"),
            .. Enumerable.Range(0, 25).Select(i => Look(at, i, "draining", 300 - i)), Look(at, 25, "closing", 9),
            Look(at, 26, "closing", 4, generation: 3, slot: "green"), new(at, "edge", "drained", "steady", "generation 6 is gone"),
        ];
        using var shown = new ManualResetEventSlim();
        using var daemon = new Responder(Socket, request => request.Method == "GET" ? Reply.Stream(notices)
            : Reply.Json(200, new DrainAnswer("edge", Drained()), WireJson.Default.DrainAnswer) with { After = shown });
        Ran ran = await EndAsync(Begin(Flipctl, ["--socket", Socket, "drain", "edge", "blue"], out _), "generation 6 is gone", shown.Set);
        Assert.Equal((0, "edge: blue (generation 6) has no connection and is stopped, after 3m 12s; 4 connections had to be closed\n"), (ran.ExitCode, ran.Output));
        Assert.Equal("edge: gating: generation 7 is being proven\n"
            + "edge: generation 6 (blue): 300 of 300 connections, draining, in 1m 0s: closing\n"
            + "edge: generation 6 (blue): 290 of 300 connections, draining, in 1m 0s: closing\n"
            + "edge: generation 6 (blue): 280 of 300 connections, draining, in 1m 0s: closing\n"
            + "edge: generation 6 (blue): 9 of 300 connections, closing, in 1m 0s: closing\n"
            + "edge: steady: generation 6 is gone\n", ran.Error);
    }

    [Fact(Timeout = Limit)]
    public async Task At_a_terminal_a_drain_shows_its_falling_curve()
    {
        Require.Program("script");
        DateTimeOffset at = DateTimeOffset.Now;
        var curve = new DrainCurve("edge", 6, "blue", null, at.AddSeconds(-60), null, 0, [new(0, 300), new(30, 250)], []);
        using var shown = new ManualResetEventSlim();
        using var daemon = new Responder(Socket, request => request switch
        {
            { Path: "/v1/events?pair=edge" } => Reply.Stream(Look(at, 0, "draining", 200), Look(at, 1, "draining", 0)),
            { Path: "/v1/pairs/edge/drains/6" } => Reply.Json(200, curve, WireJson.Default.DrainCurve),
            _ => Reply.Json(200, new DrainAnswer("edge", Drained()), WireJson.Default.DrainAnswer) with { After = shown },
        });
        Ran ran = await AtTerminalAsync($"--socket {Socket} drain edge", @"\(blue\): 0 of 300 connections", shown.Set);
        Assert.Equal(0, ran.ExitCode);
        Assert.Matches(@"edge: generation 6 \(blue\): 200 of 300 connections, draining, in \d.*: closing", ran.Output);
        Assert.Contains("300┤██", ran.Output);
        Assert.Contains("edge: generation 6 (blue): 0 of 300 connections", ran.Output);
        Assert.EndsWith("edge: blue (generation 6) has no connection and is stopped, after 3m 12s; 4 connections had to be closed\n", ran.Output);
    }

    [Fact(Timeout = Limit)]
    public async Task Interrupting_it_at_a_terminal_is_told_below_the_curve()
    {
        using var daemon = new Responder(Socket, request => request.Path == "/v1/events?pair=edge"
            ? Reply.Stream(Look(DateTimeOffset.Now, 0, "draining", 200)) : request.Method == "POST" ? Reply.Never
            : Reply.Json(404, new ErrorAnswer("usage", "no such drain"), WireJson.Default.ErrorAnswer));
        Ran ran = await AtTerminalAsync($"--socket {Socket} drain edge", until: "200┤█");
        Assert.Equal(130, ran.ExitCode);
        Assert.EndsWith("flipctl: drain edge: flipctl was interrupted, but the drain goes on in the daemon; follow it with `flipctl watch edge`, "
            + "give it up with `flipctl drain edge --cancel`\n", ran.Output);
    }

    private string Socket => Path.Combine(_directory, "c.sock");

    private static DrainRecord Drained() => new(3, Slot.Blue, [6], "drained", DateTimeOffset.Now.AddMinutes(-4), 192_000, 4, null, null);

    private static PairNotice Look(DateTimeOffset began, int second, string step, int connections, int generation = 6, string slot = "blue")
    {
        DateTimeOffset at = began.AddSeconds(second);
        return new PairNotice(at, "edge", "drain", "steady", $"generation {generation}: {connections} connections", null,
            new DrainLook(generation, slot, connections, new LeavingStatus(step, at.AddMinutes(1), "closing", 300, 0)));
    }

    private Task<Ran> AskAsync(params string[] arguments) => FlipctlAsync(["--socket", Socket, .. arguments]);
}
