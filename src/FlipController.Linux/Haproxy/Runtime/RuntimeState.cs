using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>
/// What can be changed on a HAProxy's admin socket, as it is at one instant. Texts are characters of Latin-1, one a byte, as HAProxy
/// gave them. Left out is what changes by itself: operational states, weights and drains that an agent check decides, addresses
/// that a resolver finds.
/// </summary>
/// <param name="Settings">Subject (<c>server app/s1</c>, <c>frontend web</c>, <c>process</c>) to name to value.</param>
/// <param name="Patterns">Maps and ACLs with their entries.</param>
public sealed record RuntimeState(
    ImmutableDictionary<string, ImmutableDictionary<string, string>> Settings, ImmutableArray<PatternSet> Patterns)
{
    /// <summary>
    /// Settings whose value in the files HAProxy itself remembers (srv_iweight, CMAINT): they count even when a server state was
    /// loaded at the start.
    /// </summary>
    [JsonIgnore]
    public ImmutableDictionary<string, ImmutableDictionary<string, string>> Configured { get; init; } =
        ImmutableDictionary<string, ImmutableDictionary<string, string>>.Empty;

    /// <summary>The secrets of TLS ticket keys, by subject, oldest first. Never saved: settings hold their SHA-256.</summary>
    [JsonIgnore]
    public ImmutableDictionary<string, ImmutableArray<string>> TicketKeys { get; init; } =
        ImmutableDictionary<string, ImmutableArray<string>>.Empty;

    /// <summary>Addresses of servers, those that a resolver finds too: needed to say anything about a port.</summary>
    [JsonIgnore]
    public ImmutableDictionary<string, string> Addresses { get; init; } = ImmutableDictionary<string, string>.Empty;

    public string? Find(string subject, string name) => Settings.GetValueOrDefault(subject)?.GetValueOrDefault(name);

    /// <summary>What the files give: this state, taken before anybody changed anything, with what is remembered of them.</summary>
    public RuntimeState AsConfigured() => this with { Settings = Settings.SetItems(Merged(Settings, Configured)) };

    /// <summary>This baseline, corrected by what the living process remembers of its files.</summary>
    public RuntimeState CorrectedBy(RuntimeState living) => this with { Settings = Settings.SetItems(Merged(Settings, living.Configured)) };

    private static IEnumerable<KeyValuePair<string, ImmutableDictionary<string, string>>> Merged(
        ImmutableDictionary<string, ImmutableDictionary<string, string>> settings,
        ImmutableDictionary<string, ImmutableDictionary<string, string>> stronger) =>
        from pair in stronger
        where settings.ContainsKey(pair.Key)
        select KeyValuePair.Create(pair.Key, settings[pair.Key].SetItems(pair.Value));

    /// <summary>
    /// A server state loaded at the start brought some of the active one's changes along: in the baseline they count as changes
    /// still, or they would be nobody's once no state is loaded any more.
    /// </summary>
    public RuntimeState WithoutLoaded(RuntimeState activeBaseline, RuntimeState active)
    {
        var settings = Settings.ToBuilder();
        foreach (var (subject, own) in Settings)
        {
            if (!subject.StartsWith(RuntimeSubject.Server, StringComparison.Ordinal)) continue;
            foreach (var (name, value) in own)
                if (active.Find(subject, name) == value && activeBaseline.Find(subject, name) is { } before && before != value)
                    settings[subject] = settings[subject].SetItem(name, before);
        }
        return this with { Settings = settings.ToImmutable() };
    }
}

/// <summary>The beginnings of subjects, which name what was changed.</summary>
public static class RuntimeSubject
{
    public const string Server = "server ", Frontend = "frontend ", Process = "process", TicketKeys = "TLS ticket keys ",
        Certificate = "certificate ", CaFile = "CA file ", CrlFile = "CRL file ", CertificateList = "certificate list ",
        OcspResponse = "OCSP response ";
}

public enum PatternKind { Map, Acl }

/// <summary>One map or ACL: HAProxy's <c>show map</c> and <c>show acl</c>.</summary>
/// <param name="Id">Its number in this process; it differs between files.</param>
/// <param name="File">Null: its patterns stand in the configuration itself.</param>
/// <param name="Origin">For such a one: keyword, file name and line, as HAProxy describes it.</param>
/// <param name="Entries">Pattern, for a map with a blank and its value; null: too many to be read.</param>
public sealed record PatternSet(PatternKind Kind, int Id, string? File, string Origin, ImmutableArray<string>? Entries)
{
    [JsonIgnore] public string Subject => $"{(Kind == PatternKind.Map ? "map" : "ACL")} {File ?? Origin}";
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true, RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(RuntimeState))]
internal sealed partial class RuntimeStateJson : JsonSerializerContext;
