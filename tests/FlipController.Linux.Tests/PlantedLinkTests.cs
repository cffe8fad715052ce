using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;
using FlipController.Linux.State;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests;

/// <summary>A link that somebody has put where we write leads nothing of ours away, and nobody but us reads what we write.</summary>
public sealed class PlantedLinkTests : IDisposable
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private readonly TempDir _directory = new();
    private readonly string _victim;

    public PlantedLinkTests() => _victim = _directory.Write("elsewhere/victim", "precious");

    public void Dispose()
    {
        Assert.Equal("precious", File.ReadAllText(_victim));
        _directory.Dispose();
    }

    private string Plant(string name)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_directory[name])!);
        File.Delete(_directory[name]);
        File.CreateSymbolicLink(_directory[name], _victim);
        return _directory[name];
    }

    [Fact]
    public void A_file_that_is_replaced_takes_the_links_place()
    {
        foreach (string name in new[] { "a", ".a.new" })
        {
            Plant(name);
            AtomicFile.Write(_directory["a"], "mine"u8);
            Assert.Null(new FileInfo(_directory["a"]).LinkTarget);
            Assert.Equal(OwnerOnly, File.GetUnixFileMode(_directory["a"]));
        }
        Plant(".b.new");
        AtomicFile.Link(_directory["b"], "g00001.sock");
        Assert.Equal("g00001.sock", new FileInfo(_directory["b"]).LinkTarget);
    }

    [Fact]
    public void The_history_and_the_lock_refuse_a_link()
    {
        var store = new PairStore(_directory.Path, "edge");
        string history = Plant("pairs/edge/history.jsonl");
        var flip = new FlipRecord(1, "files", null, 1, "done", DateTimeOffset.UnixEpoch, 1, null, null, null);
        Assert.Contains("it is a link", Assert.Throws<IOException>(() => store.Append(flip)).Message);
        File.Delete(history);
        store.Append(flip);
        store.Append(flip with { Id = 2 });
        Assert.Equal([1, 2], store.History().Select(f => f.Id));
        Assert.Equal(OwnerOnly, File.GetUnixFileMode(history));

        string locked = Plant("lock");
        Assert.Contains("it is a link", Assert.Throws<IOException>(() => StateLock.Take(_directory.Path)).Message);
        File.Delete(locked);
        using StateLock taken = StateLock.Take(_directory.Path);
        // Not by .NET, which asks for a lock of its own before it reads.
        Assert.Equal($"{Environment.ProcessId}", Command.Run("cat", locked));
        Assert.Contains("another flipcontrollerd holds its lock", Assert.Throws<FlipException>(() => StateLock.Take(_directory.Path)).Message);
    }

    [Fact]
    public void A_directory_that_is_a_link_is_not_written_into()
    {
        Directory.CreateDirectory(_directory["pairs"]);
        Directory.CreateSymbolicLink(_directory["pairs/edge"], _directory["elsewhere"]);
        Assert.Contains("it is a link", Assert.Throws<IOException>(() => new PairStore(_directory.Path, "edge")).Message);
        Assert.Single(Directory.GetFileSystemEntries(_directory["elsewhere"]));
        // Where the state is as a whole is an operator's choice.
        Directory.CreateSymbolicLink(_directory["state"], _directory["elsewhere"]);
        StateLock.Take(_directory["state"]).Dispose();
    }

    [Fact]
    public void A_rendered_copy_is_its_owners_alone_and_in_a_directory_of_its_own()
    {
        var place = new GenerationPlace(_directory["run"], "edge", 1);
        Directory.CreateDirectory(_directory["run/edge"]);
        Directory.CreateSymbolicLink(place.Directory, _directory["elsewhere"]);
        var copy = new RenderedConfiguration([new RenderedFile(Path.Combine(place.Directory, "1-h.cfg"), "/h.cfg", "secret"u8.ToArray(), [])], [], null)
        {
            OwnSockets = [_directory["x.g00001"]],
        };
        new HaproxyInstance("haproxy", copy, place, "/").WriteFiles();
        Assert.Null(new DirectoryInfo(place.Directory).LinkTarget);
        Assert.Equal(OwnerOnly | UnixFileMode.UserExecute, File.GetUnixFileMode(place.Directory));
        Assert.All(Directory.GetFiles(place.Directory), f => Assert.Equal(OwnerOnly, File.GetUnixFileMode(f)));
        Assert.Equal(["1-h.cfg", "sockets"], Directory.GetFiles(place.Directory).Select(Path.GetFileName).Order());
        Assert.Single(Directory.GetFileSystemEntries(_directory["elsewhere"]));
    }
}
