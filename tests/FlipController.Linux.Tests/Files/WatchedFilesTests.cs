using System.Security.Cryptography;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Files;
using FlipController.Linux.State;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Files;

public sealed class WatchedFilesTests : IDisposable
{
    private readonly TempDir _directory = new();

    public void Dispose() => _directory.Dispose();

    private WatchedFiles Files(params string[] alsoWatch) => new(Options(alsoWatch));

    private HaproxyOptions Options(params string[] alsoWatch) =>
        new() { Config = [_directory["haproxy.cfg"]], AlsoWatch = [.. alsoWatch.Select(n => _directory[n])], Settle = TimeSpan.FromMilliseconds(20) };

    /// <summary>A program that another test starts has, from its fork to its execve, a copy of what this one has just written.</summary>
    private static Snapshot Read(WatchedFiles files)
    {
        Snapshot? read = null;
        Assert.True(SpinWait.SpinUntil(() =>
        {
            try
            {
                read = files.Read();
            }
            catch (FlipException e) when (e.Message.EndsWith("has it open for writing", StringComparison.Ordinal))
            {
                // At its execve it lets go.
            }
            return read is not null;
        }, TimeSpan.FromSeconds(10)), "a file stays open for writing");
        return read!;
    }

    [Fact]
    public void The_configurations_hash_is_what_sha256sum_prints()
    {
        _directory.Write("haproxy.cfg", "listen a\n");
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes("listen a\n"))), Read(Files()).ConfigSha256);
    }

    [Fact]
    public void A_file_that_somebody_has_open_for_writing_is_not_read()
    {
        _directory.Write("haproxy.cfg", "listen a\n");
        using (FileStream writer = File.Open(_directory["haproxy.cfg"], FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            FlipException refused = Assert.Throws<FlipException>(() => Files().Read());
            Assert.Equal($"cannot read {_directory["haproxy.cfg"]}: another process has it open for writing", refused.Message);
        }
        Assert.Single(Read(Files()).Files);
    }

    [Fact]
    public void Certificates_below_a_directory_change_the_content_and_not_the_configuration()
    {
        _directory.Write("haproxy.cfg", "listen a\n");
        Directory.CreateDirectory(_directory["certs/deep"]);
        File.WriteAllText(_directory["certs/deep/one.pem"], "1");
        Snapshot before = Read(Files("certs"));
        File.WriteAllText(_directory["certs/deep/one.pem"], "2");
        Snapshot after = Read(Files("certs"));
        Assert.Equal(before.ConfigSha256, after.ConfigSha256);
        Assert.NotEqual(before.ContentSha256, after.ContentSha256);
    }

    [Fact]
    public void Every_link_on_the_way_to_a_file_has_its_directory_watched()
    {
        Directory.CreateDirectory(_directory["v1"]);
        File.WriteAllText(_directory["v1/haproxy.cfg"], "listen a\n");
        File.CreateSymbolicLink(_directory["data"], "v1");
        File.CreateSymbolicLink(_directory["haproxy.cfg"], "data/haproxy.cfg");
        IReadOnlySet<string> directories = Files().Directories();
        Assert.Contains(_directory.Path, directories);
        Assert.Contains(_directory["v1"], directories);
    }

    [Fact(Timeout = 20_000)]
    public async Task A_symbolic_link_that_is_swapped_is_one_change_and_the_same_bytes_are_none()
    {
        foreach (string version in new[] { "v1", "v2", "v3" })
        {
            Directory.CreateDirectory(_directory[version]);
            File.WriteAllText(_directory[$"{version}/haproxy.cfg"], version == "v3" ? "listen v2\n" : $"listen {version}\n");
        }
        File.CreateSymbolicLink(_directory["data"], "v1");
        File.CreateSymbolicLink(_directory["haproxy.cfg"], "data/haproxy.cfg");
        List<Snapshot> changes = [];
        using var stop = new CancellationTokenSource();
        using var watch = new FileChanges(Options(), TimeProvider.System);
        Task run = watch.RunAsync(Read(Files()).ContentSha256, s => { lock (changes) changes.Add(s); }, _ => { }, stop.Token);
        Swap("v2");
        await Eventually.True(() => Count() == 1, TimeSpan.FromSeconds(10), () => "the swap should be seen");
        Swap("v3"); // the same bytes under another name
        File.WriteAllText(_directory["v3/haproxy.cfg"], "listen v4\n");
        await Eventually.True(() => Count() >= 2, TimeSpan.FromSeconds(10), () => "the new content should be seen");
        lock (changes) Assert.Equal(["listen v2\n", "listen v4\n"], changes.Select(c => Encoding.UTF8.GetString(c.Files[0].Content)));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);

        int Count()
        {
            lock (changes) return changes.Count;
        }
    }

    /// <summary>As `ln -s NEW tmp; mv -T tmp data`.</summary>
    private void Swap(string target)
    {
        File.CreateSymbolicLink(_directory["data.new"], target);
        Command.Run("mv", "-T", _directory["data.new"], _directory["data"]);
    }

    [Fact]
    public void A_directory_stands_for_the_files_HAProxy_would_read_of_it()
    {
        foreach (string name in new[] { "b.cfg", "a.cfg", "B.cfg", ".hidden.cfg", "c.conf", "d.cfg.cfg", "e.cfg~", ".cfg" })
            _directory.Write($"conf.d/{name}", name);
        Directory.CreateDirectory(_directory["conf.d/f.cfg"]);
        var files = new WatchedFiles(new HaproxyOptions { Config = [_directory["conf.d"]] });
        Assert.Equal(["B.cfg", "a.cfg", "b.cfg"], Read(files).Files.Select(f => Path.GetFileName(f.Path)));
        Snapshot before = Read(files);
        _directory.Write("conf.d/ab.cfg", "");
        Assert.NotEqual(before.ContentSha256, Read(files).ContentSha256);
        Assert.Contains(_directory["conf.d"], files.Directories());
    }

    [Fact]
    public void Environment_files_are_watched_and_belong_to_the_snapshot()
    {
        _directory.Write("haproxy.cfg", "listen a\n");
        _directory.Write("one", "A=1\n");
        var files = new WatchedFiles(Options() with { EnvironmentFiles = [_directory["one"], $"-{_directory["two"]}"] });
        Snapshot before = Read(files);
        Assert.Equal([_directory["one"]], before.EnvironmentFiles!.Value.Select(f => f.Path));
        _directory.Write("two", "A=2\n");
        Snapshot after = Read(files);
        Assert.Equal([_directory["one"], _directory["two"]], after.EnvironmentFiles!.Value.Select(f => f.Path));
        Assert.Equal(before.ConfigSha256, after.ConfigSha256);
        Assert.NotEqual(before.ContentSha256, after.ContentSha256);
        Assert.Contains(_directory["two"], files.Paths());
        File.Delete(_directory["one"]);
        Assert.Throws<FlipException>(files.Read);
    }
}
