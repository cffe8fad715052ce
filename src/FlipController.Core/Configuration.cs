using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Core;

/// <summary>The one configuration record; its initial values are the defaults, documented in config/flipcontroller.yaml.</summary>
public sealed record Configuration
{
    public ControlOptions Control { get; init; } = new();
    /// <summary>Where metrics are served; null: nowhere.</summary>
    public MetricsOptions? Metrics { get; init; }
    public string State { get; init; } = "/var/lib/flipcontroller";
    public string Runtime { get; init; } = "/run/flipcontroller";
    /// <summary>Null: keepalived is neither heard nor told anything.</summary>
    public KeepalivedOptions? Keepalived { get; init; }
    /// <summary>Null: this node is on its own.</summary>
    public PeerOptions? Peer { get; init; }
    /// <summary>Null: there is none.</summary>
    public HandoverOptions? Handover { get; init; }
    /// <summary>Null: no FIFO is made.</summary>
    public EventsOptions? Events { get; init; }
    public ImmutableSortedDictionary<string, PairOptions> Pairs { get; init; } = ImmutableSortedDictionary<string, PairOptions>.Empty;
}

public sealed record ControlOptions
{
    public string Socket { get; init; } = "/run/flipcontroller/control.sock";
    /// <summary>The group that may use the socket beside its owner; it is left to the owner alone when there is no such group.</summary>
    public string Group { get; init; } = "flipcontroller";
}

public sealed record MetricsOptions
{
    /// <summary>ADDRESS:PORT.</summary>
    public string Listen { get; init; } = "127.0.0.1:9107";
}

public sealed record PairOptions
{
    /// <summary>1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit: it names chains, directories and URLs.</summary>
    public required string Name { get; init; }
    /// <summary>Null: the pair runs commands.</summary>
    public HaproxyOptions? Haproxy { get; init; }
    /// <summary>Null: the pair runs HAProxy.</summary>
    public CommandOptions? Command { get; init; }
    public PortsOptions Ports { get; init; } = new();
    public RedirectOptions Redirect { get; init; } = new();
    public HoldOptions Hold { get; init; } = new();
    public GateOptions Gate { get; init; } = new();
    public WatchOptions Watch { get; init; } = new();
    public DrainOptions Drain { get; init; } = new();
    public ContinuityOptions Continuity { get; init; } = new();
    public HooksOptions Hooks { get; init; } = new();
    /// <summary>Null: the pair flips whatever keepalived says.</summary>
    public PairKeepalivedOptions? Keepalived { get; init; }

    /// <summary>What both kinds of pair have.</summary>
    [JsonIgnore]
    public ServerOptions Server => (ServerOptions?)Haproxy ?? Command!;

    public static bool IsName(string name) => ConfigurationRules.IsPairName(name);
}

/// <summary>What a pair's servers are made from, whatever they are.</summary>
public abstract record ServerOptions
{
    public ImmutableArray<string> Config { get; init; } = [];
    /// <summary>Flip by itself when the files change.</summary>
    public bool Watch { get; init; } = true;
    /// <summary>More files or directories (certificates, maps) whose change makes a flip.</summary>
    public ImmutableArray<string> AlsoWatch { get; init; } = [];
    /// <summary>How long the files must rest before a change counts.</summary>
    public TimeSpan Settle { get; init; } = TimeSpan.FromMilliseconds(200);
    /// <summary>Variables the server is started with, beside those of <see cref="EnvironmentFiles"/>.</summary>
    public ImmutableSortedDictionary<string, string> Environment { get; init; } = ImmutableSortedDictionary<string, string>.Empty;
    /// <summary>Files of variables, as systemd's EnvironmentFile= names them: a leading - tolerates absence.</summary>
    public ImmutableArray<string> EnvironmentFiles { get; init; } = [];
}

public sealed record HaproxyOptions : ServerOptions
{
    public string Binary { get; init; } = "haproxy";
    /// <summary>Who runs the generations that are made from now on.</summary>
    public DriverChoice Driver { get; init; } = DriverChoice.Process;
    /// <summary>The name under which this host stands in <c>peers</c> sections (HAProxy's -L); null: the host's name.</summary>
    public string? LocalPeer { get; init; }
}

/// <summary>The controller, as daemons of their own, or systemd, each as an instance of a template unit.</summary>
public enum DriverChoice { Process, Systemd }

/// <summary>Any other service: its programs as argument lists, run without a shell; <see cref="Placeholders"/> in them are filled.</summary>
public sealed record CommandOptions : ServerOptions
{
    /// <summary>Front addresses by the name under which their private port is asked for: <c>{port:NAME}</c>.</summary>
    public ImmutableSortedDictionary<string, Service> Services { get; init; } = ImmutableSortedDictionary<string, Service>.Empty;
    /// <summary>Exits 0 when the copy of the configuration is right; empty: nobody is asked.</summary>
    public ImmutableArray<string> Check { get; init; } = [];
    public ImmutableArray<string> Start { get; init; } = [];
    /// <summary>Where <see cref="Start"/> leaves the pid of the process that goes on without it; null: it is that process itself.</summary>
    public string? Pidfile { get; init; }
    /// <summary>Has the server stop listening and finish what is open.</summary>
    public ImmutableArray<string> Stop { get; init; } = [];
    /// <summary>The same by a signal. With neither the server is left alone until nobody is connected, and then gets SIGTERM.</summary>
    public StopSignal? StopSignal { get; init; }
    /// <summary>Has a running server read again what <see cref="ServerOptions.AlsoWatch"/> names; empty: a change of that is a flip.</summary>
    public ImmutableArray<string> Reload { get; init; } = [];
    /// <summary>Where what the server says goes; a file is appended to.</summary>
    public string Output { get; init; } = "{directory}/output.log";
}

/// <summary>signal(7); the numbers are those of every architecture .NET runs on.</summary>
public enum StopSignal { Hup = 1, Int = 2, Quit = 3, Usr1 = 10, Usr2 = 12, Term = 15, Winch = 28 }

public sealed record PortsOptions
{
    public int Blue { get; init; } = 21000;
    public int Green { get; init; } = 22000;
}

/// <summary>Rules of the kernel lead NEW connections to a generation's own ports, or each listens on the front addresses (<see cref="Listener"/>).</summary>
public enum RedirectMethod { Nftables, Iptables, Listener }

/// <summary>Which of the two programs behind the name iptables.</summary>
public enum IptablesChoice { Auto, Nft, Legacy }

public enum LostRules { Repair, Report }

/// <summary>
/// Whom a UDP sender that is known already sends to after a flip: the new side, as one that is not (<see cref="Move"/>: each datagram
/// stands for itself, such as syslog's), or the old one (<see cref="Stick"/>: the others belong to what came before, as in QUIC).
/// </summary>
public enum UdpRule { Move, Stick }

public sealed record RedirectOptions
{
    public RedirectMethod Method { get; init; } = RedirectMethod.Nftables;
    /// <summary>Auto: what `iptables -V` of the host says.</summary>
    public IptablesChoice Iptables { get; init; } = IptablesChoice.Auto;
    /// <summary>The bits of the connection mark that are ours: one run of at least 8 bits; the upper 4 name the pair.</summary>
    public uint MarkMask { get; init; } = 0x00ffff00;
    /// <summary>What is done about our rules when somebody else removed or changed them.</summary>
    public LostRules Lost { get; init; } = LostRules.Repair;
    /// <summary>UDP front addresses whose senders do otherwise than is usual for them (<see cref="UdpRules"/>).</summary>
    public ImmutableSortedDictionary<string, UdpRule> Udp { get; init; } = ImmutableSortedDictionary<string, UdpRule>.Empty;
}

public enum HoldMethod { Auto, Plug, Queue, Drop, None }

public sealed record HoldOptions
{
    public HoldMethod Method { get; init; } = HoldMethod.Auto;
    public TimeSpan Max { get; init; } = TimeSpan.FromMilliseconds(100);
    /// <summary>Where clients come in, for the plug; empty: every device but lo that is up.</summary>
    public ImmutableArray<string> Devices { get; init; } = [];
}

public enum ParityRule { All, None }

public sealed record GateOptions
{
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(30);
    public ParityRule Parity { get; init; } = ParityRule.All;
    public ImmutableArray<Probe> Probes { get; init; } = [];
    /// <summary>What a changed configuration that no longer has a front address means: a refusal, or consent.</summary>
    public DroppedServices DroppedServices { get; init; } = DroppedServices.Refuse;
    /// <summary>
    /// What a front address means that another process listens on: a refusal, or that its NEW connections are taken over.
    /// </summary>
    public TakenAddresses TakenAddresses { get; init; } = TakenAddresses.Refuse;
}

public enum DroppedServices { Refuse, Allow }

public enum TakenAddresses { Refuse, Allow }

/// <summary>A question that a standby must answer.</summary>
public abstract record Probe;

/// <summary>A program that must exit 0.</summary>
public sealed record CommandProbe(ImmutableArray<string> Command, TimeSpan Timeout) : Probe
{
    public bool Equals(CommandProbe? other) => other is not null && other.Timeout == Timeout && other.Command.SequenceEqual(Command);

    public override int GetHashCode() => HashCode.Combine(Timeout, Command.Length);

    public override string ToString() => $"{string.Join('\0', Command)} {Timeout}";
}

/// <param name="Service">A front address as the configuration file has it, <c>:80</c> or <c>10.0.0.1:443</c>;
/// the probe goes to its private port.</param>
/// <param name="Host">The Host header, and with <paramref name="Tls"/> the server name (SNI); null: the address.</param>
public sealed record HttpProbe(string Service, string Path, string? Host, int ExpectFrom, int ExpectTo, bool Tls) : Probe;

public sealed record WatchOptions
{
    /// <summary>The undo window.</summary>
    public TimeSpan Undo { get; init; } = TimeSpan.FromSeconds(30);
    public double Max5xxRatio { get; init; } = 0.05;
    public int MinRequests { get; init; } = 50;
    /// <summary>
    /// How long a server may be UP on the old side and not on the new before that counts: two checkers are never in step.
    /// </summary>
    public TimeSpan ParityGrace { get; init; } = TimeSpan.FromSeconds(3);
}

public enum AtDeadline { Close, Keep }

public sealed record DrainOptions
{
    /// <summary>How long a retired generation's connections may stay.</summary>
    public TimeSpan Deadline { get; init; } = TimeSpan.FromMinutes(10);
    /// <summary>Front addresses whose connections may stay for another time.</summary>
    public ImmutableSortedDictionary<string, TimeSpan> Services { get; init; } = ImmutableSortedDictionary<string, TimeSpan>.Empty;
    public AtDeadline AtDeadline { get; init; } = AtDeadline.Close;
    /// <summary>Over how long the connections that are left at a deadline are closed, the longest idle ones first.</summary>
    public TimeSpan Spread { get; init; } = TimeSpan.FromSeconds(10);
    public int MaxRetired { get; init; } = 4;
}

/// <summary>What of the active process's memory the next one gets.</summary>
public sealed record ContinuityOptions
{
    /// <summary>Whether stick tables without <c>peers</c> are kept in step between the generations.</summary>
    public StickTablesRule StickTables { get; init; } = StickTablesRule.Separate;

    /// <summary>Changes made on the active one's admin socket, which no file holds: told before they are lost, or made again.</summary>
    public RuntimeChangesRule RuntimeChanges { get; init; } = RuntimeChangesRule.Name;
}

public enum StickTablesRule { Separate, Shared }

public enum RuntimeChangesRule { Name, Carry }

/// <summary>
/// Argument lists run after the event they are named for, without a shell; placeholders {pair}, {from}, {to}, {slot}, {reason}, {flip}.
/// </summary>
public sealed record HooksOptions
{
    public ImmutableArray<string> Switched { get; init; } = [];
    public ImmutableArray<string> Drained { get; init; } = [];
    public ImmutableArray<string> Failed { get; init; } = [];
    /// <summary>Run with four more arguments for each event of ours, as keepalived runs its own.</summary>
    public ImmutableArray<string> Notify { get; init; } = [];
}

/// <summary>One fault of a configuration file: where, what stands there, and the rule it breaks.</summary>
public sealed record ConfigurationFault(string File, int Line, string Path, string Message)
{
    /// <summary><c>FILE:LINE: PATH: MESSAGE</c>; without the path when it is about the whole file.</summary>
    public override string ToString() => Path.Length == 0 ? $"{File}:{Line}: {Message}" : $"{File}:{Line}: {FaultList.OneLine(Path)}: {Message}";
}
