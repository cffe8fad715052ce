using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Commands;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Commands;

public sealed class CommandInstanceTests : IDisposable
{
    private const int Limit = 30_000, Kill = 9;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private readonly TempDir _files = new();
    private readonly List<ProcessIdentity> _started = [];

    private GenerationPlace Place => new(_files.Path, "web", 7);

    private CommandInstance Instance(ImmutableArray<string> start, string? pidfile = null, string text = "", params (string Name, string Value)[] environment)
    {
        var options = new CommandOptions
        {
            Services = ImmutableSortedDictionary<string, Service>.Empty.Add("web", new Service(System.Net.IPAddress.Any, 80)),
            Config = [_files["app.conf"]], Start = start, Pidfile = pidfile, Check = ["cat", "{config}", "/nonexistent"],
        };
        var pair = new PairOptions { Name = "web", Command = options };
        RenderedConfiguration rendered = CommandCopy.Render(pair, new Snapshot([new SnapshotFile(_files["app.conf"], Encoding.Latin1.GetBytes(text))], "", ""),
            Place, Slot.Blue, new PortBlock(21000, 100), new HashSet<int> { 21000 });
        var instance = new CommandInstance(options, new CommandWords(pair, Place, Slot.Blue, rendered.Services), rendered, Place, _files.Path)
        {
            Environment = environment.ToImmutableDictionary(v => v.Name, v => v.Value),
        };
        instance.WriteFiles();
        return instance;
    }

    private async Task<ProcessIdentity> StartedAsync(CommandInstance instance)
    {
        ProcessIdentity process = await instance.StartAsync(CancellationToken.None);
        _started.AddRange(ProcessFamily.Of(process.Pid));
        return process;
    }

    [Fact(Timeout = Limit)]
    public async Task A_program_in_the_foreground_has_a_session_of_its_own_and_nothing_of_ours()
    {
        ProcessIdentity process = await StartedAsync(Instance(
            ["sh", "-c", "echo $A $HOME $FLIP_SECRET $(ls /proc/$$/fd | wc -l) $PWD {port:web}; echo to stderr >&2; exec sleep 1000"], environment: ("A", "b c")));
        await Eventually.True(() => File.ReadAllText(Path.Combine(Place.Directory, "output.log")).Contains("stderr", StringComparison.Ordinal), s_patience, () => "it should speak");
        // 0, 1, 2, and that of its own listing's pipe.
        Assert.Matches($"^b c / [34] {_files.Path} 21001\nto stderr\n$", File.ReadAllText(Path.Combine(Place.Directory, "output.log")));
        Assert.Equal((process.Pid, 19), ProcessIdentity.Stat.Read(process.Pid) is { } stat ? (stat.Session, stat.Niceness) : default);
        Assert.Equal("0000000000000000", File.ReadLines($"/proc/{process.Pid}/status").First(l => l.StartsWith("SigBlk", StringComparison.Ordinal))[8..]);
        Assert.Equal(process, Linux.Instance.LeftBehind(Place));
        process.Signal(Kill);
        await Eventually.True(() => Linux.Instance.LeftBehind(Place) is null, s_patience, () => "a zombie is dead");
        CommandInstance.Reap();
        await Eventually.True(() =>
        {
            CommandInstance.Reap();
            return !Directory.Exists($"/proc/{process.Pid}");
        }, s_patience, () => "nothing of it should be left");
    }

    [Theory(Timeout = Limit)]
    [InlineData("exec sleep 1000")] // by its environment
    [InlineData("exec env -i sleep 1000")] // by where its output goes
    [InlineData("exec env -i tail -f {config} >/dev/null 2>&1")] // by its words
    public async Task What_nobody_could_note_is_found_all_the_same(string script)
    {
        ProcessIdentity process = await StartedAsync(Instance(["sh", "-c", script]));
        File.Delete(Place.ProcessFile);
        await Eventually.True(() => Linux.Instance.LeftBehind(Place) == process, s_patience, () => $"{process} should be found: {Linux.Instance.LeftBehind(Place)}");
        Assert.Null(Linux.Instance.LeftBehind(Place with { Number = 8 }));
    }

    [Fact(Timeout = Limit)]
    public async Task With_a_pidfile_it_is_the_process_named_there_and_a_family_is_all_that_descends_from_it()
    {
        ProcessIdentity process = await StartedAsync(Instance(
            ["sh", "-c", "(setsid sh -c 'sleep 1000 & sleep 1001 & echo $$ >\"$1\"; wait' of \"$1\" >/dev/null 2>&1 &)", "of", "{pidfile}"], "{directory}/x.pid"));
        Assert.Equal(process.Pid, int.Parse(File.ReadAllText(Path.Combine(Place.Directory, "x.pid"))));
        await Eventually.True(() => ProcessFamily.Pids(process.Pid).Count == 3, s_patience, () => string.Join(' ', ProcessFamily.Pids(process.Pid)));
        _started.AddRange(ProcessFamily.Of(process.Pid));
        Assert.Empty(ProcessFamily.Survivors(process));
        process.Signal(Kill);
        await Eventually.True(() => ProcessFamily.Survivors(process).Count == 2, s_patience, () => "its children are left in its session");
    }

    [Fact(Timeout = Limit)]
    public async Task What_does_not_start_is_told_with_its_words_and_the_users_files()
    {
        CommandInstance instance = Instance(["sh", "-c", "echo {config}:3: no such thing >&2; exit 4"], "{directory}/x.pid");
        var failed = await Assert.ThrowsAsync<FlipException>(() => instance.StartAsync(CancellationToken.None));
        Assert.Equal($"sh does not start (exit code 4): {_files["app.conf"]}:3: no such thing", failed.Message);
        Assert.Equal($"cat: /nonexistent: No such file or directory", await instance.CheckAsync(CancellationToken.None));
    }

    [Fact]
    public void A_copy_is_filled_byte_for_byte_and_a_port_of_no_service_is_refused()
    {
        CommandInstance instance = Instance(["x"], text: "listen {port:web};\r\n# \u00ff {slot} {other} {\"a\": {generation}}\nroot {directory};");
        RenderedFile copy = Assert.Single(instance.Configuration.Files);
        Assert.Equal($"listen 21001;\r\n# \u00ff blue {{other}} {{\"a\": 7}}\nroot {Place.Directory};", Encoding.Latin1.GetString(copy.Content));
        Assert.Equal((Path.Combine(Place.Directory, "config", "app.conf"), UnixFileMode.UserRead | UnixFileMode.UserWrite), (copy.Path, File.GetUnixFileMode(copy.Path)));
        Assert.Equal($"{_files["app.conf"]}:2: {{port:tls}} is the port of no service; there are web",
            Assert.Throws<FlipException>(() => Instance(["x"], text: "\n{port:tls}")).Message);
    }

    public void Dispose()
    {
        foreach (ProcessIdentity process in _started) process.Signal(Kill);
        CommandInstance.Reap();
        _files.Dispose();
    }
}
