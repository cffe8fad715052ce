using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>Projections of texts, into one and the same place.</summary>
internal static class Projected
{
    public static readonly SlotPlace Place = new("/run/fc/g00007", "/run/fc/g00007.sock", new PortBlock(21000, 100), new HashSet<int>(), "lb1");

    /// <summary>Everything is known, and nothing is there.</summary>
    public static readonly HaproxySurroundings Bare = new()
    {
        Environment = ImmutableDictionary<string, string>.Empty,
        Build = new HaproxyBuild(HaproxyVersion.Parse("HAProxy version 2.6.12-1+deb12u4 2026/10/17")!, ["OPENSSL", "LUA"], "OpenSSL 3.0.22"),
    };

    public static HaproxySurroundings With(params (string Name, string Value)[] variables) =>
        Bare with { Environment = variables.ToDictionary(v => v.Name, v => v.Value) };

    public static SourceFile File(string text, string path = "/etc/haproxy/haproxy.cfg") => new(path, Encoding.UTF8.GetBytes(text));

    public static RenderedConfiguration Of(string text, HaproxySurroundings? surroundings = null)
    {
        ProjectionResult result = Projection.Render([File(text)], Place, surroundings ?? Bare);
        Assert.Empty(result.Faults);
        return result.Configuration!;
    }

    /// <summary>What the file becomes.</summary>
    public static string Copy(string text, HaproxySurroundings? surroundings = null) =>
        Encoding.UTF8.GetString(Of(text, surroundings).Files[1].Content);

    /// <summary><c>LINE: MESSAGE</c>.</summary>
    public static IEnumerable<string> Faults(string text, HaproxySurroundings? surroundings = null) =>
        Projection.Render([File(text)], Place, surroundings ?? Bare).Faults.Select(f => $"{f.Line}: {f.Message}");
}
