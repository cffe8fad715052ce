using System.Collections.Immutable;
using FlipController.Core;
using Xunit;

namespace FlipController.Core.Tests;

public sealed class CommandConfigurationTests
{
    private static readonly (string, object)[] s_nginx =
    [
        ("services", Map(("web", ":80"), ("tls", "[::]:443"))), ("config", List("/etc/nginx/pair.conf", "/etc/nginx/more.conf")),
        ("check", List("nginx", "-t", "-c", "{config}")), ("start", List("/usr/sbin/nginx", "-c", "{config}", "-g", "pid {pidfile}; # {port:web} {config:more.conf} {slot}")),
        ("pidfile", "{directory}/nginx.pid"), ("stop", List("nginx", "-c", "{config}", "-s", "quit")),
        ("also_watch", List("/etc/certs")), ("reload", List("nginx", "-s", "reload")), ("output", "/var/log/web-{slot}.log"),
        ("watch", "false"), ("settle", "1s"), ("environment", Map(("A", "b"))), ("environment_files", List("/e")),
    ];

    [Fact]
    public void Every_value_is_read()
    {
        PairOptions pair = Good(s_nginx, ("gate", Map(("probes", List(Map(("command", List("curl", "localhost:{port:web}")), ("timeout", "2s")))))));
        CommandOptions command = pair.Command!;
        Assert.Null(pair.Haproxy);
        Assert.Same(command, pair.Server);
        Assert.Equal(["tls [::]:443", "web *:80"], command.Services.Select(s => $"{s.Key} {s.Value}"));
        Assert.Equal(["/etc/nginx/pair.conf", "/etc/nginx/more.conf"], command.Config);
        Assert.Equal((4, 5, 5, 3), (command.Check.Length, command.Start.Length, command.Stop.Length, command.Reload.Length));
        Assert.Equal(("{directory}/nginx.pid", null, "/var/log/web-{slot}.log"), (command.Pidfile, command.StopSignal, command.Output));
        Assert.Equal((false, TimeSpan.FromSeconds(1)), (command.Watch, command.Settle));
        Assert.Equal(["/etc/certs"], command.AlsoWatch);
        Assert.Equal(["/e"], command.EnvironmentFiles);
        Assert.Equal([new("A", "b")], command.Environment);
        Assert.Equal([new CommandProbe(["curl", "localhost:{port:web}"], TimeSpan.FromSeconds(2))], pair.Gate.Probes);
    }

    [Fact]
    public void Services_and_a_program_are_enough()
    {
        CommandOptions command = Good([("services", Map(("web", ":80"))), ("start", List("server"))]).Command!;
        Assert.Equal((true, "{directory}/output.log"), (command.Watch, command.Output));
        Assert.Empty(command.Config);
        Assert.Null(command.Pidfile);
    }

    [Theory]
    [InlineData("TERM", StopSignal.Term)]
    [InlineData("SIGQUIT", StopSignal.Quit)]
    [InlineData("WINCH", StopSignal.Winch)]
    public void A_signal_has_its_name_with_or_without_SIG(string text, StopSignal signal) =>
        Assert.Equal(signal, Good(With("stop_signal", text)).Command!.StopSignal);

    [Theory]
    [InlineData("stop_signal", "KILL", "\"KILL\" must be HUP, INT, QUIT, TERM, USR1, USR2 or WINCH")]
    [InlineData("pidfile", "/run/web.pid", "\"/run/web.pid\" must have {directory} or {generation} in it: an older generation of the slot may still drain, and remove its file when it ends")]
    [InlineData("pidfile", "{directory}/{port:x}", "\"{directory}/{port:x}\" must be without {port:x}, which is none of services (web)")]
    [InlineData("pidfile", "web-{generation}.pid", "\"web-{generation}.pid\" must be an absolute path, without . or ..")]
    [InlineData("output", "{nowhere}/x", "\"{nowhere}/x\" must be an absolute path, without . or ..")]
    [InlineData("output", "/x/{nowhere}", "\"/x/{nowhere}\" must be without {nowhere}, which is none of {pair}, {slot}, {generation}, {directory}, {config}, {pidfile}, {config:NAME}, {port:NAME}")]
    public void A_value_against_its_rule_is_refused_with_the_rule(string key, string value, string message) =>
        Assert.Equal([$"pairs.edge.command.{key}: {message}"], Told(With(key, value)));

    [Theory]
    [InlineData("{port:tls}", "which is none of services (web)")]
    [InlineData("{config}", "as config has no file")]
    [InlineData("{config:x}", "which is no file of config")]
    [InlineData("{pidfile}", "as there is no pidfile")]
    [InlineData("{host}", "which is none of {pair}, {slot}, {generation}, {directory}, {config}, {pidfile}, {config:NAME}, {port:NAME}")]
    public void A_placeholder_that_stands_for_nothing_is_refused_wherever_it_is(string placeholder, string why)
    {
        (string, object)[] command = [("services", Map(("web", ":80"))), ("start", List("server", "{\"json\": 1}", placeholder)), ("check", List("server", placeholder))];
        Assert.Equal(
            new[] { "start[2]", "check[1]" }.Select(p => $"pairs.edge.command.{p}: \"{placeholder}\" must be without {placeholder}, {why}").Append(
                $"pairs.edge.gate.probes[0].command[1]: \"{placeholder}\" must be without {placeholder}, {why}"),
            Told(command, ("gate", Map(("probes", List(Map(("command", List("curl", placeholder)))))))));
    }

    [Fact]
    public void All_that_is_wrong_is_told_at_once()
    {
        string[] told = Told(
        [
            ("services", Map(("Web", ":81"), ("one", ":80"), ("two", ":80"), ("three", "80"))), ("config", List("/a/x.conf", "/b/x.conf")),
            ("start", List("bin/x")), ("stop", List("x")), ("stop_signal", "QUIT"), ("reload", List("x")), ("binary", "haproxy"),
        ], ("continuity", Map(("stick_tables", "shared"))), ("redirect", Map(("method", "listener"), ("udp", Map((":514", "move"))))));
        string[] expected =
        [
            "pairs.edge.continuity: must not stand beside command: it is about what HAProxy alone tells and can be told",
            "pairs.edge.redirect.method: must not be listener beside command: whether a server that is not HAProxy lets another one listen beside it, and with how many sockets it does, is its own affair",
            "pairs.edge.redirect.udp: must not stand beside method: listener, which moves TCP connections only",
            "pairs.edge.command.services.Web: \"Web\" must be 1 to 32 of a-z, 0-9, _ and -, and begin with a letter or digit",
            "pairs.edge.command.services.two: \"*:80\" must be a front address of its own; one has it",
            "pairs.edge.command.services.three: \"80\" must be a front address, such as :80, 10.0.0.1:443 or \"[::]:80\" (both families)",
            "pairs.edge.command.config[1]: \"/b/x.conf\" must have another name than /a/x.conf: their copies lie in one directory",
            "pairs.edge.command.start[0]: \"bin/x\" must be the name of a program, or its absolute path",
            "pairs.edge.command.stop_signal: must not stand beside stop: the server is told once",
            "pairs.edge.command.reload: needs also_watch: it is run when a file that is named there changes, and never else",
            "pairs.edge.command.binary: \"binary\" is no key here; there are services, config, pidfile, check, start, stop, stop_signal, reload, output, watch, also_watch, settle, environment, environment_files",
        ];
        Assert.Equal(expected.Order(StringComparer.Ordinal), told.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Without_services_or_a_program_there_is_nothing_to_run()
    {
        Assert.Equal(
        [
            "pairs.edge.command.services: is missing; it must be a map of at least 1 name and its front address, such as { web: \":80\" }",
            "pairs.edge.command.start: is missing; it must be a list: the program that serves, and its arguments",
        ], Told([("watch", "true")]));
    }

    [Fact]
    public void A_pair_runs_HAProxy_or_commands()
    {
        Assert.Contains("pairs.edge.command: must not stand beside haproxy: a pair runs one or the other",
            Told([("services", Map(("web", ":80"))), ("start", List("server"))], ("haproxy", Map(("config", List("/a.cfg"))))));
    }

    [Fact]
    public void A_program_that_probes_an_HAProxy_asks_for_ports_by_front_address()
    {
        ImmutableArray<string> told = [.. Faults(Map(("haproxy", Map(("config", List("/a.cfg")))), ("gate", Map(("probes", List(
            Map(("command", List("curl", "{port::80}", "{port:web}", "{config}")))))))))];
        Assert.Equal(
        [
            "pairs.edge.gate.probes[0].command[2]: \"{port:web}\" must be without {port:web}, as HAProxy's services have no names; a front address is one, such as {port::80}",
            "pairs.edge.gate.probes[0].command[3]: \"{config}\" must be without {config}, which only a command pair has",
        ], told);
    }

    [Theory]
    [InlineData("a {slot} {unknown} {\"x\": 1} {port:web}", "a blue {unknown} {\"x\": 1} 21000")]
    [InlineData("a{3} {} { slot } {port:}", "a{3} {} { slot } {port:}")]
    public void Only_what_is_ours_is_filled(string text, string filled) =>
        Assert.Equal(filled, Placeholders.Fill(text, name => name switch { "slot" => "blue", "port:web" => "21000", _ => null }));

    private static (string, object)[] With(string key, object value) =>
        [("services", Map(("web", ":80"))), ("start", List("server")), (key, value)];

    private static (string, object)[] Map(params (string, object)[] entries) => entries;

    private static object[] List(params object[] items) => items;

    private static PairOptions Good((string, object)[] command, params (string, object)[] more)
    {
        ConfigurationResult result = Read(Map([("command", command), .. more]));
        Assert.Empty(result.Faults);
        return result.Configuration!.Pairs["edge"];
    }

    private static string[] Told((string, object)[] command, params (string, object)[] more) => Faults(Map([("command", command), .. more]));

    private static string[] Faults((string, object)[] pair)
    {
        ConfigurationResult result = Read(pair);
        Assert.Null(result.Configuration);
        return [.. result.Faults.Select(f => $"{f.Path}: {f.Message}")];
    }

    private static ConfigurationResult Read((string, object)[] pair)
    {
        int line = 0;
        return ConfigurationReader.Read(Node(Map(("pairs", Map(("edge", pair))))), "f.yaml");

        ConfigurationNode Node(object value) => value switch
        {
            (string, object)[] map => new MapNode("f.yaml", Math.Max(1, line), [.. map.Select(e => new MapEntry(e.Item1, ++line, Node(e.Item2)))]),
            object[] list => new ListNode("f.yaml", line, [.. list.Select(Node)]),
            _ => new ScalarNode("f.yaml", line, (string)value),
        };
    }
}
