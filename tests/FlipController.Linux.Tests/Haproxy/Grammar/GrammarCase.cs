using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>
/// A configuration of our own and what becomes of it. The characters of its text are the bytes of the file (Latin-1); @DIR@ stands
/// for the directory it is in, which also has what <see cref="CorpusDirectory"/> puts there.
/// </summary>
/// <param name="Expected">Each service with its private port, "*:80 21000", in order; or each refusal, "haproxy.cfg:2: haproxy: …".</param>
public sealed record GrammarCase(string Name, ImmutableArray<(string Name, string Text)> Files, ImmutableArray<string> Expected)
{
    public static readonly PortBlock Ports = new(21000, 1000);

    public const string LocalPeer = "lb1";

    /// <summary>What HAProxy is started with.</summary>
    public ImmutableDictionary<string, string> Environment { get; init; } = ImmutableDictionary<string, string>.Empty;

    /// <summary>The first HAProxy that takes it, for instance 3.0; null: all that are supported.</summary>
    public string? Since { get; init; }

    /// <summary>Why HAProxy itself is not asked about it.</summary>
    public string? NotForHaproxy { get; init; }

    public override string ToString() => Name;

    public static GrammarCase Moved(string name, string text, params string[] expected) => new(name, [("haproxy.cfg", text)], [.. expected]);

    public static GrammarCase Refused(string name, string text, params string[] expected) => Moved(name, text, expected);

    public ImmutableArray<SourceFile> Sources(string directory) =>
        [.. Files.Select(f => new SourceFile($"{directory}/{f.Name}", Encoding.Latin1.GetBytes(f.Text.Replace("@DIR@", directory, StringComparison.Ordinal))))];

    public ProjectionResult Render(string directory) => Projection.Render(
        Sources(directory), new SlotPlace($"{directory}/slot", $"{directory}/slot/admin.sock", Ports, new HashSet<int>(), LocalPeer), Surroundings());

    public HaproxySurroundings Surroundings() => new()
    {
        Environment = Environment,
        Resolve = (name, family) => name != "localhost" ? null : family == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Loopback : IPAddress.Loopback,
        Build = Build,
    };

    /// <summary>What the table of conditions is written for; whether the real program agrees is asked elsewhere.</summary>
    private static readonly HaproxyBuild Build = new(new HaproxyVersion("2.6.12", 2, 6), ["OPENSSL", "THREAD", "LUA", "NS", "TFO"], "OpenSSL 3.0.9");

    public static IEnumerable<string> Said(ProjectionResult result, string directory) => result.IsRendered
        ? result.Configuration.Services.Select(s => string.Create(CultureInfo.InvariantCulture, $"{s.Service} {s.PrivatePort}"))
        : result.Faults.Select(f => f.ToString().Replace(directory + "/", "", StringComparison.Ordinal));
}
