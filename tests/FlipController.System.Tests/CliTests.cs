using System.Collections.Immutable;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>flipctl as its users have it: a process with arguments, output and an exit code. Where it needs a daemon's answer, a <see cref="Responder"/> gives it.</summary>
public sealed class CliTests : IDisposable
{
    private const int Limit = 60_000;

    private readonly string _directory = Directory.CreateTempSubdirectory("flipctl").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Theory(Timeout = Limit)]
    [InlineData("status")]
    [InlineData("flip")]
    [InlineData("rollback")]
    [InlineData("history")]
    [InlineData("watch")]
    [InlineData("check-config")]
    [InlineData("render")]
    [InlineData("plan")]
    [InlineData("doctor")]
    [InlineData("plug")]
    [InlineData("reset")]
    [InlineData("notify")]
    [InlineData("check")]
    [InlineData("maintenance")]
    [InlineData("completion")]
    public async Task Help_of_every_verb_has_examples_that_name_it(string verb)
    {
        Ran help = await FlipctlAsync(verb, "--help");
        Assert.Equal((0, ""), (help.ExitCode, help.Error));
        Assert.StartsWith("Description:\n  ", help.Output);
        string examples = help.Output[help.Output.IndexOf("Examples:\n", StringComparison.Ordinal)..];
        Assert.All(examples.Split('\n', StringSplitOptions.RemoveEmptyEntries).Skip(1), e => Assert.Contains($"flipctl {verb}", e));
    }

    [Fact(Timeout = Limit)]
    public async Task Help_names_the_exit_codes_and_every_verb()
    {
        Ran help = await FlipctlAsync("--help");
        Assert.Contains("Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused in this state, 4 daemon not reachable.", help.Output);
        Assert.Contains("Examples:\n  flipctl status\n", help.Output);
    }

    [Theory(Timeout = Limit)]
    [InlineData("", "a verb is missing; nothing was done; see `flipctl --help`")]
    [InlineData("flp edge", "\"flp\" is no verb; did you mean flip; nothing was done; see `flipctl --help`")]
    [InlineData("flip", "flip: Required argument 'PAIR' missing for command: 'flip'; nothing was done; see `flipctl flip --help`")]
    [InlineData("flip Edge", "flip: \"Edge\" is no pair name, which is 1 to 32 of a-z, 0-9, _ and -; nothing was done; see `flipctl flip --help`")]
    [InlineData("render", "render: PAIR SLOT or --file PATH is missing; nothing was done; see `flipctl render --help`")]
    [InlineData("render edge", "render: PAIR SLOT or --file PATH is missing; nothing was done; see `flipctl render --help`")]
    [InlineData("render edge green --file x", "render: --file shows files, PAIR SLOT what a pair has; both together mean nothing; nothing was done; see `flipctl render --help`")]
    [InlineData("render edge red", "render: Argument 'red' not recognized. Must be one of: 'blue' 'green'; nothing was done; see `flipctl render --help`")]
    [InlineData("history --limit 0", "history: --limit must be at least 1; nothing was done; see `flipctl history --help`")]
    [InlineData("history --limit x", "history: Cannot parse argument 'x' for option '--limit' as expected type 'System.Int32'; nothing was done; see `flipctl history --help`")]
    [InlineData("plug limit --dev lo", "plug: --limit BYTES is missing; nothing was done; see `flipctl plug --help`")]
    [InlineData("plug attach --dev lo --parent 40", "plug: --parent: \"40\" is no class, which is two hexadecimal numbers: 40:3; nothing was done; see `flipctl plug --help`")]
    [InlineData("plug show", "plug: Option '--dev' is required; nothing was done; see `flipctl plug --help`")]
    [InlineData("status edge --wait", "status: Unrecognized command or argument '--wait'; nothing was done; see `flipctl status --help`")]
    [InlineData("reset", "reset: it must be confirmed, as new connections then go to whatever listens on the front ports; nothing was removed; say --yes")]
    public async Task Misuse_is_one_sentence_and_exit_code_2(string arguments, string sentence)
    {
        string[] words = arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(new Ran(2, "", $"flipctl: {sentence}\n"), await FlipctlAsync(words));

        Ran json = await FlipctlAsync([.. words, "--json"]);
        Assert.Equal((2, ""), (json.ExitCode, json.Output));
        Assert.Equal(new ErrorAnswer("usage", sentence), JsonSerializer.Deserialize(json.Error, WireJson.Default.ErrorAnswer));
    }

    [Theory(Timeout = Limit)]
    [InlineData("status")]
    [InlineData("status edge")]
    [InlineData("flip edge")]
    [InlineData("rollback edge --no-wait")]
    [InlineData("history")]
    [InlineData("watch")]
    [InlineData("render edge green")]
    [InlineData("plan edge")]
    public async Task Without_a_daemon_the_exit_code_is_4(string arguments)
    {
        string[] words = arguments.Split(' ');
        Ran none = await FlipctlAsync(["--socket", Socket, .. words]);
        Assert.Equal(new Ran(4, "", $"flipctl: {words[0]}: cannot reach the daemon at {Socket}: there is no such socket; nothing was changed; "
            + "is it running (`systemctl status flipcontrollerd`), and is this its socket (--socket)?\n"), none);
    }

    [Fact(Timeout = Limit)]
    public async Task A_socket_nobody_listens_on_is_told_from_none()
    {
        using var left = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        left.Bind(new UnixDomainSocketEndPoint(Socket));
        Ran stale = await FlipctlAsync("--socket", Socket, "status", "--json");
        Assert.Equal(4, stale.ExitCode);
        ErrorAnswer answer = JsonSerializer.Deserialize(stale.Error, WireJson.Default.ErrorAnswer)!;
        Assert.Equal("unreachable", answer.Code);
        Assert.StartsWith($"status: cannot reach the daemon at {Socket}: nobody listens there; nothing was changed; ", answer.Error);
        Ran longer = await FlipctlAsync("--socket", "/" + new string('x', 120), "status");
        Assert.Equal(4, longer.ExitCode);
        Assert.Contains("the path does not fit a unix socket address", longer.Error);
    }

    [Fact(Timeout = Limit)]
    public async Task Check_config_says_that_a_good_file_is_good()
    {
        string file = await FileAsync("pairs:\n  api:\n    haproxy: { config: [/a.cfg] }\n");
        Assert.Equal(new Ran(0, $"{file}: valid, 1 pair: api\n", ""), await FlipctlAsync("check-config", file));
        Ran json = await FlipctlAsync("check-config", file, "--json");
        Assert.True(JsonSerializer.Deserialize(json.Output, WireJson.Default.CheckReport)!.Ok);
    }

    [Fact(Timeout = Limit)]
    public async Task Check_config_names_every_fault_of_a_bad_file()
    {
        string file = await FileAsync("""
            stat: /a
            pairs:
              edge:
                haproxy: { config: [haproxy.cfg] }
                drain: { deadline: 0s }

            """);
        Assert.Equal(new Ran(2, "",
            $"{file}:1: stat: \"stat\" is no key here; did you mean state?\n"
            + $"{file}:4: pairs.edge.haproxy.config[0]: \"haproxy.cfg\" must be an absolute path, without . or ..\n"
            + $"{file}:5: pairs.edge.drain.deadline: \"0s\" must be between 1s and 24h\n"
            + $"flipctl: {file} has 3 faults; a daemon told to load it keeps what it runs with\n"), await FlipctlAsync("check-config", file));

        Ran json = await FlipctlAsync("--json", "check-config", file);
        CheckReport report = JsonSerializer.Deserialize(json.Output, WireJson.Default.CheckReport)!;
        Assert.Equal((2, false, 3), (json.ExitCode, report.Ok, report.Lines.Length));
        Assert.Equal(new CheckLine($"{file}:5: pairs.edge.drain.deadline", false, "\"0s\" must be between 1s and 24h"), report.Lines[2]);
        Assert.Equal("usage", JsonSerializer.Deserialize(json.Error, WireJson.Default.ErrorAnswer)!.Code);
    }

    [Theory(Timeout = Limit)]
    [InlineData("bash")]
    [InlineData("zsh")]
    [InlineData("fish")]
    public async Task A_completion_script_is_a_script(string shell)
    {
        Ran script = await FlipctlAsync("completion", shell);
        Assert.Equal((0, ""), (script.ExitCode, script.Error));
        Require.Program(shell);
        Ran syntax = await RunAsync(shell, ["-n", await FileAsync(script.Output)]);
        Assert.Equal(new Ran(0, "", ""), syntax);
    }

    [Fact(Timeout = Limit)]
    public async Task The_bash_script_completes_verbs_and_pair_names()
    {
        using var daemon = new Responder(Socket, _ => Reply.Json(200, new StatusReport([Edge(), Edge() with { Name = "echo" }]), WireJson.Default.StatusReport));
        string script = await FileAsync((await FlipctlAsync("completion", "bash")).Output);
        Assert.Equal("rollback\n", await CompletedAsync("flipctl roll", "flipctl", "roll"));
        // Half a second is all a Tab waits for the daemon, which a busy host may need for the start of flipctl alone.
        string pairs = "";
        await Eventually.True(async () => (pairs = await CompletedAsync("flipctl flip e", "flipctl", "flip", "e")) != "\n",
            TimeSpan.FromSeconds(20), () => "no pair is offered");
        Assert.Equal("echo\nedge\n", pairs);
        Assert.Equal("--allow-drop\n", await CompletedAsync("flipctl flip edge --al", "flipctl", "flip", "edge", "--al"));

        async Task<string> CompletedAsync(string line, params string[] words)
        {
            string program = $"PATH={Programs.Folder}:$PATH FLIPCONTROLLER_SOCKET={Socket}; export FLIPCONTROLLER_SOCKET; . {script}; "
                + $"COMP_LINE='{line}' COMP_POINT={line.Length} COMP_WORDS=({string.Join(' ', words)}) COMP_CWORD={words.Length - 1}; "
                + "_flipctl; printf '%s\\n' \"${COMPREPLY[@]}\" | sort";
            return (await RunAsync("bash", ["-c", program])).Output;
        }
    }

    [Fact(Timeout = Limit)]
    public async Task Status_shows_a_pair_and_whatever_is_wrong_with_it()
    {
        PairStatus edge = Edge() with
        {
            State = "watching", Pending = true, Fault = "the rules were removed by another program",
            Previous = Generation("green", 6, new ConnectionCounts(3, null, 4)), UndoEnds = DateTimeOffset.Now.AddMinutes(5),
            Redirect = new RedirectStatus("nftables", null),
        };
        using var daemon = new Responder(Socket, _ => Reply.Json(200, new StatusReport([edge]), WireJson.Default.StatusReport));

        Ran text = await FlipctlAsync("--socket", Socket, "status");

        Assert.Equal((0, ""), (text.ExitCode, text.Error));
        Assert.DoesNotContain('\u001b', text.Output);
        string[] lines = [.. text.Output.Split('\n').Select(l => string.Join(' ', l.Split(' ', StringSplitOptions.RemoveEmptyEntries)))];
        Assert.Equal("edge watching *:80 -> 21000", lines[0]);
        Assert.Contains(lines, l => l.StartsWith("active blue 7 4242 ", StringComparison.Ordinal) && l.EndsWith(" 0123456789ab 12 11 10", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains(" 3 ? 4 undo for another 4m ", StringComparison.Ordinal));
        Assert.Contains("redirect the kernel sends new connections to generation none, the active one is 7", lines);
        Assert.Contains("hold none (auto: one transaction)", lines);
        Assert.Contains(lines, l => l.StartsWith("last flip 7 done ", StringComparison.Ordinal)
            && l.EndsWith(" ago, files, 6 -> 7, window 212 us (none), 812 ms in all (new certificate)", StringComparison.Ordinal));
        Assert.Contains("pending a newer change waits for this flip to end", lines);
        Assert.Contains("fault the rules were removed by another program", lines);

        Ran json = await FlipctlAsync("--socket", Socket, "status", "--json");
        Assert.Equal("edge", JsonSerializer.Deserialize(json.Output, WireJson.Default.StatusReport)!.Pairs[0].Name);
        Assert.Single(json.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    [Theory(Timeout = Limit)]
    [InlineData("flip edge --reason new --allow-drop", "/v1/pairs/edge/flip", """{"reason":"new","wait":true,"allowDrop":true,"binary":null}""")]
    [InlineData("flip edge --no-wait --reason @x", "/v1/pairs/edge/flip", """{"reason":"@x","wait":false,"allowDrop":false,"binary":null}""")]
    [InlineData("flip edge --binary /opt/haproxy", "/v1/pairs/edge/flip", """{"reason":null,"wait":true,"allowDrop":false,"binary":"/opt/haproxy"}""")]
    [InlineData("adopt edge --stop --reason new", "/v1/pairs/edge/adopt", """{"reason":"new","wait":true,"stop":true}""")]
    [InlineData("release edge --unit haproxy.service", "/v1/pairs/edge/release", """{"reason":null,"wait":true,"unit":"haproxy.service"}""")]
    [InlineData("rollback edge", "/v1/pairs/edge/rollback", """{"reason":null,"wait":true}""")]
    public async Task A_flip_is_asked_for_as_the_contract_says(string arguments, string path, string body)
    {
        Request? seen = null;
        using var daemon = new Responder(Socket, request =>
        {
            seen = request;
            return Reply.Json(200, new FlipAnswer("edge", Flip()), WireJson.Default.FlipAnswer);
        });
        Ran ran = await FlipctlAsync(["--socket", Socket, .. arguments.Split(' ')]);
        Assert.Equal(new Ran(0, "edge: new connections go to generation 7 (before: 6); window 212 us (none), 812 ms in all; 5 open connections stay on the old side\n", ""), ran);
        Assert.Equal(new Request("POST", path, body), seen);
    }

    [Theory(Timeout = Limit)]
    [InlineData(409, "refused", 3)]
    [InlineData(422, "failed", 1)]
    [InlineData(400, "usage", 2)]
    [InlineData(404, "usage", 2)]
    [InlineData(500, "failed", 1)]
    public async Task A_refusal_keeps_the_daemons_words_and_gives_its_exit_code(int status, string code, int exitCode)
    {
        using var daemon = new Responder(Socket, _ => Reply.Json(status, new ErrorAnswer(code, "pair edge: it isn't possible"), WireJson.Default.ErrorAnswer));
        Assert.Equal(new Ran(exitCode, "", "flipctl: pair edge: it isn't possible\n"), await FlipctlAsync("--socket", Socket, "flip", "edge"));
        Ran json = await FlipctlAsync("--socket", Socket, "--json", "plan", "edge");
        Assert.Equal((exitCode, "pair edge: it isn't possible"), (json.ExitCode, JsonSerializer.Deserialize(json.Error, WireJson.Default.ErrorAnswer)!.Error));
        Assert.DoesNotContain("\\u", json.Error);
    }

    [Fact(Timeout = Limit)]
    public async Task A_rollback_says_where_new_connections_go_back_to()
    {
        using var daemon = new Responder(Socket, _ => Reply.Json(200, new FlipAnswer("edge", Flip() with { Outcome = "rolled-back" }), WireJson.Default.FlipAnswer));
        Assert.Equal(new Ran(0, "edge: new connections go back to generation 6 (flip 7 to generation 7 is undone); window 212 us (none); "
            + "5 open connections stay on the old side\n", ""), await FlipctlAsync("--socket", Socket, "rollback", "edge"));
    }

    [Fact(Timeout = Limit)]
    public async Task What_is_only_accepted_is_told_so()
    {
        using var daemon = new Responder(Socket, _ => Reply.Json(202, new FlipAnswer("edge", null), WireJson.Default.FlipAnswer));
        Assert.Equal(new Ran(0, "edge: flip accepted; follow it with `flipctl watch edge`\n", ""), await FlipctlAsync("--socket", Socket, "flip", "edge", "--no-wait"));
    }

    [Fact(Timeout = Limit)]
    public async Task A_daemon_that_goes_away_under_a_flip_is_not_reported_as_a_flip_that_failed()
    {
        using var daemon = new Responder(Socket, _ => Reply.HangUp);
        Ran ran = await FlipctlAsync("--socket", Socket, "flip", "edge");
        Assert.Equal(new Ran(4, "", $"flipctl: flip: the daemon at {Socket} went away before it answered; what it began it finishes when it is back; look with `flipctl status`\n"), ran);
    }

    [Fact(Timeout = Limit)]
    public async Task Interrupting_flipctl_leaves_the_flip_going_and_says_so()
    {
        using var daemon = new Responder(Socket, _ => Reply.Never);
        Task<Ran> running = FlipctlAsync(["--socket", Socket, "flip", "edge"], out Process process);
        await daemon.Asked;
        await RunAsync("kill", ["-INT", $"{process.Id}"]);
        Assert.Equal(new Ran(130, "", "flipctl: flip edge: flipctl was interrupted, but the flip goes on in the daemon; follow it with `flipctl watch edge`, "
            + "see how it ended with `flipctl status edge`\n"), await running);
    }

    [Fact(Timeout = Limit)]
    public async Task Watch_prints_each_event_at_once_until_interrupted()
    {
        var notice = new PairNotice(DateTimeOffset.Now, "edge", "state", "gating", "generation 8 is being proven");
        using var daemon = new Responder(Socket, _ => Reply.Stream(notice, notice with { State = "steady", Text = "done" }));
        Task<Ran> running = FlipctlAsync(["--socket", Socket, "watch", "edge", "--json"], out Process process, untilLines: 2);
        await daemon.Asked;
        Ran ran = await running;
        Assert.Equal(0, ran.ExitCode);
        string[] lines = ran.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(["gating", "steady"], lines.Select(l => JsonSerializer.Deserialize(l, WireJson.Default.PairNotice)!.State));
    }

    [Fact(Timeout = Limit)]
    public async Task Watch_ends_when_nobody_reads_it_any_more()
    {
        var notice = new PairNotice(DateTimeOffset.Now, "edge", "state", "gating", "generation 8 is being proven");
        // More than a pipe holds, so that it must notice.
        using var daemon = new Responder(Socket, _ => Reply.Stream([.. Enumerable.Repeat(notice, 2000)]));
        Ran ran = await RunAsync("bash", ["-c", $"set -o pipefail; {Flipctl} --socket {Socket} watch | head -n 1"]);
        Assert.Equal((0, ""), (ran.ExitCode, ran.Error));
        Assert.EndsWith("edge  gating     generation 8 is being proven\n", ran.Output);
    }

    [Fact(Timeout = Limit)]
    public async Task On_a_terminal_a_flip_shows_each_step_with_its_time()
    {
        Require.Program("script");
        PairNotice Step(string state) => new(DateTimeOffset.Now, "edge", "state", state, $"now {state}");
        using var shown = new ManualResetEventSlim();
        using var daemon = new Responder(Socket, request => request.Method == "GET"
            ? Reply.Stream(Step("preparing"), Step("gating"), Step("switching"), Step("watching"))
            : Reply.Json(200, new FlipAnswer("edge", Flip()), WireJson.Default.FlipAnswer) with { After = shown });
        var ran = await FlipctlProcess.EndAsync(FlipctlProcess.Begin("script", ["-qec", $"{Flipctl} --socket {Socket} flip edge", "/dev/null"], out _,
            ("TERM", "xterm-256color"), ("COLUMNS", "200")), @"edge: preparing\s+\d+\.\d\d s", shown.Set);
        Assert.Equal(0, ran.ExitCode);
        Assert.Matches(@"edge: preparing\s+\d+\.\d\d s", ran.Output);
        Assert.Contains("edge: new connections go to generation 7", ran.Output);
    }

    [Fact(Timeout = Limit)]
    public async Task History_is_the_newest_flips_with_what_went_wrong()
    {
        var report = new HistoryReport("edge", [Flip(), Flip() with { Id = 8, Outcome = "failed", Error = "the gate closed" }, Flip() with { Id = 9 }]);
        using var daemon = new Responder(Socket, _ => Reply.Json(200, report, WireJson.Default.HistoryReport));
        Ran text = await FlipctlAsync("--socket", Socket, "history", "edge", "--limit", "2");
        Assert.Equal(4, text.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains("new certificate; the gate closed", text.Output);
        Ran json = await FlipctlAsync("--socket", Socket, "history", "edge", "--limit", "2", "--json");
        Assert.Equal([8, 9], JsonSerializer.Deserialize(json.Output, WireJson.Default.HistoryReport)!.Flips.Select(f => f.Id));
    }

    [Fact(Timeout = Limit)]
    public async Task Plan_says_what_would_change_and_its_exit_code_only_when_asked()
    {
        var plan = new PlanReport("edge", true, "green", ["*:443"], ["*:81"], ["*:80"], [new("*:80", "", "ssl crt a.pem")], "--- a\n+++ b\n", "", new("haproxy", "2.6.12"), new("/opt/haproxy", "3.0.0"), [], [], ["*:81 would be dropped"]);
        using var daemon = new Responder(Socket, _ => Reply.Json(200, plan, WireJson.Default.PlanReport));
        Ran text = await FlipctlAsync("--socket", Socket, "plan", "edge");
        Assert.Equal(new Ran(0, "edge: a flip now would be refused: *:81 would be dropped\n  binary: haproxy (2.6.12) -> /opt/haproxy (3.0.0)\n  + *:443\n  - *:81\n  ~ *:80\n      - none\n      + ssl crt a.pem\nconfiguration:\n"
            + "  --- a\n  +++ b\n", ""), text);
        plan = plan with { Problems = [] };
        Assert.Equal(1, (await FlipctlAsync("--socket", Socket, "plan", "edge", "--exit-code")).ExitCode);
        plan = plan with { Changes = false };
        Assert.Equal(0, (await FlipctlAsync("--socket", Socket, "plan", "edge", "--exit-code")).ExitCode);
        plan = plan with { Problems = ["no"] };
        Assert.Equal(3, (await FlipctlAsync("--socket", Socket, "plan", "edge", "--exit-code")).ExitCode);
    }

    [Fact(Timeout = Limit)]
    public async Task Render_shows_the_copy_of_any_file_and_what_HAProxy_says_to_it()
    {
        string file = Path.Combine(_directory, "edge.cfg");
        await File.WriteAllTextAsync(file, "global\n hard-stop-after 9s\ndefaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nlisten a\n bind \"127.0.0.1:${PORT-80}\"\n bogus\n");
        Ran rejected = await FlipctlAsync("render", "--file", file, "--check");
        Assert.Equal(2, rejected.ExitCode);
        Assert.Contains("listen a\n bind 127.0.0.1:21000\n", rejected.Output);
        Assert.Contains($"note: {file}:2: hard-stop-after 9s", rejected.Error);
        Assert.Contains($"parsing [{file}:9] : unknown keyword 'bogus' in 'listen' section", rejected.Error);
        Assert.EndsWith($"flipctl: haproxy does not accept the copy of {file}\n", rejected.Error);
        RenderReport report = JsonSerializer.Deserialize((await FlipctlAsync("render", "--file", file, "--json")).Output, WireJson.Default.RenderReport)!;
        Assert.Equal(file, report.Files[1].Source);
        Assert.Single(report.Notes!.Value);

        await File.WriteAllTextAsync(file, "listen a\n bind udp@:53\n bind :80 transparent\n");
        Assert.Equal(new Ran(2, "", $"{file}:2: bind \"udp@:53\" is a UDP address; only TCP and QUIC addresses can be redirected\n"
            + $"{file}:3: bind \":80\" is transparent: it takes connections for addresses of other hosts, which cannot be redirected to a private port\n"
            + $"flipctl: {file} cannot be copied: 2 lines stand in the way\n"), await FlipctlAsync("render", "--file", file));
    }

    [Fact(Timeout = Limit)]
    public async Task Render_prints_what_HAProxy_could_read()
    {
        var report = new RenderReport("edge", "green", [new RenderedText("/run/f/edge.cfg", "/etc/haproxy/edge.cfg", "global\n"), new RenderedText("/run/f/own.cfg", null, "defaults\n")]);
        using var daemon = new Responder(Socket, _ => Reply.Json(200, report, WireJson.Default.RenderReport));
        Assert.Equal("# /run/f/edge.cfg (from /etc/haproxy/edge.cfg)\nglobal\n# /run/f/own.cfg (FlipController's own)\ndefaults\n",
            (await FlipctlAsync("--socket", Socket, "render", "edge", "green")).Output);
    }

    [Fact(Timeout = Limit)]
    public async Task Doctor_says_of_everything_whether_it_is_there_and_what_to_do_if_not()
    {
        string file = await FileAsync($"state: {_directory}/s\nruntime: {_directory}/r\ncontrol: {{ socket: {Socket}, group: no-such-group }}\n"
            + "pairs:\n  edge:\n    haproxy: { config: [/nonexistent/edge.cfg], binary: /nonexistent/haproxy }\n    ports: { blue: 40000, green: 41000 }\n");
        Ran ran = await FlipctlAsync("doctor", "--config", file, "--json");
        CheckReport report = JsonSerializer.Deserialize(ran.Output, WireJson.Default.CheckReport)!;
        Assert.Equal((1, false), (ran.ExitCode, report.Ok));
        Assert.All(report.Lines.Where(l => !l.Ok), l => Assert.NotNull(l.Remedy));
        Assert.Equal((false, false), Line("pair edge: haproxy"));
        Assert.Equal((false, false), Line("pair edge: configuration"));
        Assert.Equal((false, true), Line("control group"));
        Assert.Equal((true, false), Line("state directory"));
        Assert.Contains("FAIL  pair edge: configuration: /nonexistent/edge.cfg: No such file or directory\n      -> make the file, or name another\n",
            (await FlipctlAsync("doctor", "--config", file)).Output);

        (bool, bool) Line(string subject) => report.Lines.Single(l => l.Subject == subject) is var line ? (line.Ok, line.Warning) : default;
    }

    /// <summary>Nothing but the length of a key is said of what stands in it.</summary>
    [Theory(Timeout = Limit)]
    [InlineData(32, "600", "10.78.9.1", "10.78.9.2", null, null)]
    [InlineData(31, "600", "10.78.9.1", "10.78.9.2", "peer.key", "it has 31 bytes, and 32 to 4096 are asked for\n      -> `(umask 077; openssl rand -out ")]
    [InlineData(32, "640", "10.78.9.1", "10.78.9.2", "peer.key", "others than root may read or change it (mode 640, owner 0), so it is no secret\n      -> `chown root ")]
    [InlineData(0, null, "10.78.9.1", "10.78.9.2", "peer.key", "-> `(umask 077; openssl rand -out ")]
    [InlineData(32, "600", "10.78.9.7", "10.78.9.2", "peer.listen", "10.78.9.7 is on no device here\n      -> name an address of this node that stays here")]
    [InlineData(32, "600", "10.78.9.1", "192.0.2.1", "peer.address", "there is no route to 192.0.2.1\n      -> mend the route, or peer.address")]
    public async Task Doctor_says_whether_the_peer_can_be_asked(int keyBytes, string? mode, string listen, string address, string? wrong, string? why)
    {
        Require.Netns();
        using Netns net = Netns.Create();
        net.Ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1");
        net.Ip("address", "add", "10.78.9.1/24", "dev", "eth0");
        net.Ip("link", "set", "eth0", "up");
        net.Ip("link", "set", "eth1", "up");
        string key = Path.Combine(_directory, "peer.key");
        if (mode is not null)
        {
            await File.WriteAllBytesAsync(key, new byte[keyBytes]);
            File.SetUnixFileMode(key, (UnixFileMode)Convert.ToInt32(mode, 8));
        }
        string file = await FileAsync($"state: {_directory}/s\nruntime: {_directory}/r\ncontrol: {{ socket: {Socket} }}\nkeepalived: {{ track_file: {{ path: {_directory}/track }} }}\n"
            + $"peer: {{ listen: \"{listen}:9108\", address: \"{address}:9108\", key: {key} }}\nhandover: {{ vips: [10.78.9.100] }}\n"
            + "pairs:\n  edge:\n    haproxy: { config: [/nonexistent/edge.cfg] }\n    ports: { blue: 40000, green: 41000 }\n");
        using NetnsProcess json = net.Start(Flipctl, "doctor", "--config", file, "--json"), text = net.Start(Flipctl, "doctor", "--config", file);
        await json.Exit(TimeSpan.FromMilliseconds(Limit / 2));
        await text.Exit(TimeSpan.FromMilliseconds(Limit / 2));
        CheckLine[] lines = [.. JsonSerializer.Deserialize(json.Output, WireJson.Default.CheckReport)!.Lines.Where(l => l.Subject.StartsWith("peer.", StringComparison.Ordinal))];
        Assert.Equal([("peer.key", wrong != "peer.key", false), ("peer.listen", wrong != "peer.listen", false), ("peer.address", wrong != "peer.address", false)],
            lines.Select(l => (l.Subject, l.Ok, l.Warning)));
        if (why is not null) Assert.Contains(why, text.Output, StringComparison.Ordinal);
        else
        {
            Assert.Contains($"ok    peer.key: {key} has 32 bytes, ", text.Output, StringComparison.Ordinal);
            Assert.Contains("ok    peer.address: 10.78.9.2 is reached by eth0\n", text.Output, StringComparison.Ordinal);
            Assert.Contains("ok    handover.device: eth0: the peer is on the same link\n", text.Output, StringComparison.Ordinal);
        }
    }

    [Fact(Timeout = Limit)]
    public async Task Reset_takes_our_table_out_of_the_kernel_and_says_what_follows()
    {
        Require.Netns();
        Require.Program("unshare");
        Require.Program("nft");
        Ran ran = await RunAsync("unshare", ["-n", "sh", "-c", $"nft add table inet flipcontroller; nft add table inet other; {Flipctl} reset --yes; nft list tables; {Flipctl} reset --yes --json"]);
        Assert.Equal("", ran.Error);
        string[] lines = ran.Output.Split('\n');
        Assert.Equal(
        [
            "ok    removed: table inet flipcontroller", "warn  new connections: go to whatever listens on the front ports now",
            "      -> start what should serve them", "table inet other",
        ], lines[..4]);
        Assert.Equal(new CheckLine("removed", true, "nothing: the kernel has no rule of ours"),
            Assert.Single(JsonSerializer.Deserialize(lines[4], WireJson.Default.CheckReport)!.Lines));
    }

    private string Socket => Path.Combine(_directory, "c.sock");

    private static string Flipctl { get; } = Programs.Cli;

    private static PairStatus Edge() => new("edge", "steady", Generation("blue", 7, new ConnectionCounts(12, 11, 10)), null, null, [], false,
        new RedirectStatus("nftables", 7), new HoldStatus("auto", "none", "one transaction"), Flip(), null, null, []);

    private static GenerationStatus Generation(string slot, int number, ConnectionCounts connections) => new(slot, number, 4242,
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", DateTimeOffset.Now.AddHours(-2),
        new Dictionary<string, int> { ["*:80"] = 21000 }.ToImmutableSortedDictionary(), connections, "2.6.12", null);

    private static FlipRecord Flip() =>
        new(7, "files", 6, 7, "done", DateTimeOffset.Now.AddMinutes(-3), 812, new HoldReport("none", 212, 0, 0), "new certificate", null, 5);

    private async Task<string> FileAsync(string text)
    {
        string path = Path.Combine(_directory, Path.GetRandomFileName());
        await File.WriteAllTextAsync(path, text);
        return path;
    }

    private static Task<Ran> FlipctlAsync(params string[] arguments) => FlipctlAsync(arguments, out _);

    private static Task<Ran> FlipctlAsync(string[] arguments, out Process process, int untilLines = int.MaxValue) =>
        EndAsync(process = Begin(Flipctl, arguments), untilLines);

    private static Task<Ran> RunAsync(string program, string[] arguments, params (string Name, string Value)[] environment) =>
        EndAsync(Begin(program, arguments, environment));

    private static Process Begin(string program, string[] arguments, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment.Remove("FLIPCONTROLLER_SOCKET");
        start.Environment.Remove("NO_COLOR"); // The test runner sets it for itself.
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        Process process = Process.Start(start)!;
        process.StandardInput.Close();
        return process;
    }

    /// <param name="untilLines">After so many lines of output it is interrupted.</param>
    private static async Task<Ran> EndAsync(Process process, int untilLines = int.MaxValue)
    {
        using (process)
        {
            using var limit = new CancellationTokenSource(Limit / 2);
            try
            {
                Task<string> error = process.StandardError.ReadToEndAsync(limit.Token);
                var output = new StringBuilder();
                for (int lines = 1; await process.StandardOutput.ReadLineAsync(limit.Token) is { } line; lines++)
                {
                    output.Append(line).Append('\n');
                    if (lines == untilLines) await RunAsync("kill", ["-INT", $"{process.Id}"]);
                }
                await process.WaitForExitAsync(limit.Token);
                return new Ran(process.ExitCode, output.ToString(), await error);
            }
            finally
            {
                if (!process.HasExited) process.Kill();
            }
        }
    }

    private sealed record Ran(int ExitCode, string Output, string Error);
}
