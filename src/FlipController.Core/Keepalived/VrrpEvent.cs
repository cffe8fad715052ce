using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json.Serialization;

namespace FlipController.Core.Keepalived;

/// <summary>What keepalived speaks of.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<VrrpKind>))]
public enum VrrpKind { Instance, Group }

/// <summary>Where it says that is.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<VrrpState>))]
public enum VrrpState { Master, Backup, Fault, Stop, Deleted }

/// <summary>
/// One thing keepalived said, in a line of its FIFO (<c>INSTANCE "VI_1" MASTER 100</c>) or in the arguments of a notify script:
/// notify_fifo() and notify_script_exec() in keepalived/vrrp/vrrp_notify.c.
/// </summary>
/// <param name="Priority">Null: none was told. Of a group keepalived says 0, which means nothing.</param>
public sealed record VrrpEvent(VrrpKind Kind, string Name, VrrpState State, int? Priority)
{
    /// <summary>A name of 255 characters, and what stands around it.</summary>
    public const int LongestLine = 512;

    private const int HighestPriority = 255;

    // With vrrp_notify_priority_changes it says the last two, too; a master hears a lower priority in the one before.
    private static readonly ImmutableSortedDictionary<string, VrrpState> s_states = new Dictionary<string, VrrpState>
    {
        ["MASTER"] = VrrpState.Master, ["BACKUP"] = VrrpState.Backup, ["FAULT"] = VrrpState.Fault, ["STOP"] = VrrpState.Stop,
        ["DELETED"] = VrrpState.Deleted, ["MASTER_RX_LOWER_PRI"] = VrrpState.Master, ["MASTER_PRIORITY"] = VrrpState.Master,
        ["BACKUP_PRIORITY"] = VrrpState.Backup,
    }.ToImmutableSortedDictionary(StringComparer.Ordinal);

    public static IEnumerable<string> StateWords => s_states.Keys;

    /// <summary>A line about virtual and real servers, which a <c>notify_fifo</c> gets as well.</summary>
    public static bool IsOfLvs(string line) => line.StartsWith("VS ", StringComparison.Ordinal) || line.StartsWith("RS ", StringComparison.Ordinal);

    /// <summary>The words of a line, or of an argument list.</summary>
    /// <returns>Why it is none; null: it is one.</returns>
    public static string? Read(string type, string name, string state, string? priority, out VrrpEvent? read)
    {
        read = null;
        VrrpKind kind;
        if (type == "INSTANCE") kind = VrrpKind.Instance;
        else if (type == "GROUP") kind = VrrpKind.Group;
        else return $"\"{type}\" must be INSTANCE or GROUP";
        if (ConfigurationRules.VrrpName(name, out _) is { } must) return $"\"{name}\" must be {must}";
        if (!s_states.TryGetValue(state, out VrrpState told)) return $"\"{state}\" must be one of {string.Join(", ", s_states.Keys)}";
        int? value = null;
        if (priority is { Length: > 0 })
        {
            if (!int.TryParse(priority, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number > HighestPriority)
                return $"\"{priority}\" must be a priority between 0 and {HighestPriority}";
            value = kind == VrrpKind.Group ? null : number;
        }
        read = new VrrpEvent(kind, name, told, value);
        return null;
    }

    /// <summary>A line of the FIFO without its end. The name stands in quotes, and may have blanks in it.</summary>
    public static string? ReadLine(string line, out VrrpEvent? read)
    {
        read = null;
        int open = line.IndexOf(" \"", StringComparison.Ordinal), close = line.LastIndexOf("\" ", StringComparison.Ordinal);
        if (open < 0 || close <= open + 1) return "there is no name in quotes";
        string[] rest = line[(close + 2)..].Split(' ');
        return rest.Length > 2 ? "there is more than a state and a priority" : Read(line[..open], line[(open + 2)..close], rest[0], rest.Length == 2 ? rest[1] : null, out read);
    }

    /// <summary>As keepalived writes it.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{Kind.ToString().ToUpperInvariant()} \"{Name}\" {State.ToString().ToUpperInvariant()} {Priority ?? 0}");
}

/// <summary>What is known of an instance or a group.</summary>
/// <param name="Since">When it came to be so, as far as is known.</param>
/// <param name="Source">Who said so last.</param>
public sealed record VrrpStanding(VrrpKind Kind, string Name, VrrpState State, int? Priority, DateTimeOffset Since, VrrpSource Source)
{
    /// <summary>What the same says now. The same state again is no news but of the priority: two ways may tell one event.</summary>
    public VrrpStanding Heard(VrrpEvent e, DateTimeOffset at, VrrpSource source) => e.State == State
        ? this with { Priority = e.Priority ?? Priority, Source = source }
        : new VrrpStanding(Kind, Name, e.State, e.Priority ?? Priority, at, source);
}

/// <summary>By which way a state became known.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<VrrpSource>))]
public enum VrrpSource
{
    Fifo,
    /// <summary><c>flipctl notify</c>.</summary>
    Notify,
    /// <summary>Left by <c>flipctl notify</c> while the daemon was away.</summary>
    Left,
    /// <summary>What was known when the daemon ended.</summary>
    Saved,
    /// <summary>The addresses that keepalived moves are on a device of this node, or are not.</summary>
    Addresses,
}
