using System.Collections.Immutable;
using System.Diagnostics;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Fronts;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Fronts;

public sealed class FrontLinksTests : IDisposable
{
    private readonly TempDir _files = new();
    private readonly List<Socket> _sockets = [];

    public void Dispose()
    {
        foreach (Socket socket in _sockets) socket.Dispose();
        _files.Dispose();
    }

    private string Front => _files["a.sock"];

    private ImmutableArray<UnixFront> To(int number) => [new UnixFront(Front, $"{Front}.g{number:00000}")];

    private string? Target => new FileInfo(Front).LinkTarget;

    private Socket Listening(string path)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        _sockets.Add(socket);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        socket.Listen(64);
        return socket;
    }

    private static void Commit(FrontLinks links)
    {
        using (links) Assert.Equal((0, null), (links.Commit(), links.Failure));
    }

    private string[] Left() => [.. Directory.GetFileSystemEntries(_files.Path).Select(p => Path.GetFileName(p)).Order(StringComparer.Ordinal)];

    [Fact]
    public void A_path_leads_where_it_is_led_and_nothing_is_left_beside_it()
    {
        Commit(FrontLinks.To(To(1)));
        Assert.Equal("a.sock.g00001", Target);
        Commit(FrontLinks.To(To(2)));
        Assert.Equal("a.sock.g00002", Target);
        Assert.Equal(["a.sock"], Left());
        Assert.Equal($"{Front}.g00002", FrontPath.LinkOf(Front));
    }

    [Fact]
    public void What_was_prepared_and_not_done_changes_nothing()
    {
        Commit(FrontLinks.To(To(1)));
        FrontLinks.To(To(2)).Dispose();
        Assert.Equal("a.sock.g00001", Target);
        Assert.Equal(["a.sock"], Left());
    }

    [Fact]
    public void A_listening_socket_is_put_aside_and_comes_back_with_its_listener()
    {
        Socket unmanaged = Listening(Front);
        Commit(FrontLinks.To(To(1)));
        Assert.Equal(["a.sock", "a.sock.unmanaged"], Left());
        Assert.Equal(FrontPathKind.Listened, FrontPath.Look(FrontPath.UnmanagedOf(Front)).Kind);
        Commit(FrontLinks.Back([Front]));
        Assert.Equal(["a.sock"], Left());
        Assert.Equal([Environment.ProcessId], FrontPath.Look(Front).Pids);
        Connect(Front);
        unmanaged.Accept().Dispose();
    }

    [Fact]
    public void A_dead_socket_gives_way_and_so_does_the_name_of_one_that_was_put_aside_and_ended()
    {
        Listening(Front).Dispose();
        // .NET removes the file with the socket, HAProxy does not.
        if (!File.Exists(Front)) DeadSocket();
        Assert.Equal(FrontPathKind.Dead, FrontPath.Look(Front).Kind);
        Commit(FrontLinks.To(To(1)));
        Assert.Equal(["a.sock"], Left());
    }

    private void DeadSocket()
    {
        string there = _files["there"];
        Socket socket = Listening(there);
        File.Move(there, Front);
        socket.Dispose();
    }

    [Fact]
    public void A_start_after_a_kill_between_the_exchange_and_the_tidying_finds_both_names()
    {
        Listening(Front);
        string killed = _files[".a.sock.flip"];
        File.Move(Front, killed);
        File.CreateSymbolicLink(Front, "a.sock.g00001");
        FrontLinks.Settle(Front);
        Assert.Equal(["a.sock", "a.sock.unmanaged"], Left());
        FrontLinks.Settle(Front);
        Assert.Equal(["a.sock", "a.sock.unmanaged"], Left());
    }

    [Fact]
    public void A_generation_that_stops_leaves_the_path_to_the_active_one_or_to_nobody()
    {
        Commit(FrontLinks.To(To(1)));
        FrontLinks.Leave(To(2), To(3));
        Assert.Equal("a.sock.g00001", Target);
        FrontLinks.Leave(To(1), To(3));
        Assert.Equal("a.sock.g00003", Target);
        FrontLinks.Leave(To(3), []);
        Assert.Empty(Left());
    }

    [Fact]
    public void What_is_not_ours_is_refused_with_its_reason()
    {
        Assert.Equal($"the front path {Front} is a file that is no socket, which is not replaced; remove it, or bind another path", Refused(() => File.WriteAllText(Front, "")));
        Assert.Equal($"the front path {Front} is a directory, which is not replaced; remove it, or bind another path", Refused(() => Directory.CreateDirectory(Front)));
        Assert.Contains("is a link to b.sock that FlipController has not made", Refused(() => File.CreateSymbolicLink(Front, "b.sock")), StringComparison.Ordinal);
        Assert.Contains("is a link to ../a.sock.g00001 that", Refused(() => File.CreateSymbolicLink(Front, "../a.sock.g00001")), StringComparison.Ordinal);
        Assert.Contains($"is in use: ", Refused(() => Listening(Front)), StringComparison.Ordinal);
        Assert.Contains("and would lose its NEW connections; stop it first, or bind another path", Refused(() => Listening(Front)), StringComparison.Ordinal);
    }

    private string? Refused(Action make)
    {
        make();
        try
        {
            return FrontPath.Look(Front).Refusal("edge", null);
        }
        finally
        {
            if (Directory.Exists(Front)) Directory.Delete(Front);
            else File.Delete(Front);
        }
    }

    [Fact]
    public void A_link_of_another_user_and_a_directory_in_which_ours_would_not_be_followed_are_refused()
    {
        File.CreateSymbolicLink(Front, "a.sock.g00001");
        Run("chown", "-h", "1", Front);
        Assert.Contains("that FlipController has not made (of user 1)", FrontPath.Look(Front).Refusal("edge", null), StringComparison.Ordinal);
        File.Delete(Front);
        Run("chmod", "777", _files.Path);
        Assert.Contains("where anybody may put a link of his own in the place of ours", FrontPath.Look(Front).Why, StringComparison.Ordinal);
        Run("chmod", "1777", _files.Path);
        Assert.Equal(FrontPathKind.Free, FrontPath.Look(Front).Kind);
        Run("chown", "1", _files.Path);
        Assert.Contains("no link of ours is followed there (fs.protected_symlinks)", FrontPath.Look(Front).Why, StringComparison.Ordinal);
        Directory.CreateDirectory(_files["real"]);
        File.CreateSymbolicLink(_files["alias"], "real");
        Assert.Equal(FrontPathKind.Free, FrontPath.Look(_files["alias/a.sock"]).Kind);
        Run("chown", "-h", "1", _files["alias"]);
        Assert.Contains($"is below {_files["alias"]}, a link of user 1", FrontPath.Look(_files["alias/a.sock"]).Why, StringComparison.Ordinal);
        Assert.Contains("which is no directory here; make it", FrontPath.Look(_files["none/a.sock"]).Why, StringComparison.Ordinal);
    }

    [Fact]
    public void Other_rights_than_the_socket_taken_over_from_are_refused()
    {
        Listening(Front);
        string own = To(1)[0].Socket;
        Listening(own);
        File.SetUnixFileMode(Front, (UnixFileMode)Convert.ToInt32("666", 8));
        File.SetUnixFileMode(own, (UnixFileMode)Convert.ToInt32("600", 8));
        Assert.Contains("group 0 and mode 666, the generation's own would be of user 0, group 0 and mode 600", FrontPath.OtherAccess(To(1)[0]), StringComparison.Ordinal);
        File.SetUnixFileMode(own, (UnixFileMode)Convert.ToInt32("666", 8));
        Assert.Null(FrontPath.OtherAccess(To(1)[0]));
    }

    /// <summary>A connect() follows the link at one instant; whatever it finds listens.</summary>
    [Fact(Timeout = 60_000)]
    public async Task Who_connects_while_the_link_is_exchanged_thousands_of_times_is_never_refused()
    {
        foreach (int number in (int[])[1, 2])
        {
            Socket listener = Listening(To(number)[0].Socket);
            _ = Task.Factory.StartNew(() =>
            {
                try
                {
                    while (true) listener.Accept().Dispose();
                }
                catch (SocketException)
                {
                    // The test has ended.
                }
            }, TaskCreationOptions.LongRunning);
        }
        Commit(FrontLinks.To(To(1)));
        using var stop = new CancellationTokenSource();
        Task<int>[] clients = [.. Enumerable.Range(0, 2).Select(_ => Task.Factory.StartNew(() =>
        {
            int made = 0;
            for (; !stop.IsCancellationRequested; made++) Connect(Front);
            return made;
        }, TaskCreationOptions.LongRunning))];
        for (int i = 0; i < 5000; i++) Commit(FrontLinks.To(To(1 + i % 2)));
        await stop.CancelAsync();
        Assert.True((await Task.WhenAll(clients)).Sum() > 100);
    }

    private static void Connect(string path)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(path));
    }

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
