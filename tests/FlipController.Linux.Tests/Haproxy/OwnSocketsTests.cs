using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class OwnSocketsTests
{
    [Fact]
    public void They_lead_where_they_are_told_and_go_with_their_generation()
    {
        using TemporaryDirectory files = new();
        string In(string name) => Path.Combine(files.Path, name);
        GenerationPlace Made(int number, params string[] users)
        {
            var place = new GenerationPlace(In("run"), "edge", number);
            Directory.CreateDirectory(place.Directory);
            string[] sockets = [.. users.Select(u => $"{In(u)}.{Path.GetFileName(place.Directory)}")];
            File.WriteAllText(place.SocketList, string.Join('\0', sockets));
            foreach (string socket in sockets) File.WriteAllText(socket, "");
            return place;
        }
        string? Target(string name) => new FileInfo(In(name)).LinkTarget;

        GenerationPlace one = Made(1, "a.sock", "b.sock"), two = Made(2, "a.sock", "b.sock"), three = Made(3, "a.sock"), four = new(In("run"), "edge", 4);
        Assert.Empty(four.OwnSockets());
        one.LeadOwnSockets(two);
        Assert.Equal(("a.sock.g00002", "b.sock.g00002"), (Target("a.sock.g00001"), Target("b.sock.g00001")));
        one.LeadOwnSockets(three);
        // What the third does not have stays as it was.
        Assert.Equal(("a.sock.g00003", "b.sock.g00002"), (Target("a.sock.g00001"), Target("b.sock.g00001")));
        one.LeadOwnSockets(four);
        Assert.Equal("a.sock.g00003", Target("a.sock.g00001"));
        one.LeadOwnSockets(null);
        Assert.Equal("a.sock", Target("a.sock.g00001"));
        four.LeadOwnSockets(one);
        two.Remove();
        one.Remove();
        Assert.Equal(["a.sock.g00003"], Directory.GetFiles(files.Path, "*").Select(Path.GetFileName));
    }
}
