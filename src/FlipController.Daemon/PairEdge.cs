using FlipController.Core;
using FlipController.Linux.Fronts;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>What the effects of one pair work with.</summary>
internal sealed record PairEdge(
    PairOptions Options, string Runtime, PortBlock Blue, PortBlock Green, ConnectionMark Mark, PairStore Store,
    PairRedirect Redirect, Redirects Redirects, DeathWatch Deaths, NoticeBoard Notices, FrontAddresses Fronts, SteadyTime Time, ILogger Log, DrainLog Drains,
    DrainSessions Sessions, ConntrackLedger? Ledger, Lock HoldTurn, ForeignRules Others)
{
    public string Name => Options.Name;

    public DateTimeOffset Now => Time.GetUtcNow();

    public GenerationPlace PlaceOf(int number) => new(Runtime, Name, number);

    public PairPorts Ports => new(Name, Blue, Green);

    /// <summary>What it has read of its files: when it started, or later without a flip.</summary>
    public string ContentOf(Generation generation) => PlaceOf(generation.Number).Reloaded ?? generation.ContentSha256;

    /// <summary>Makes a generation's chain, which must not be there.</summary>
    public void AddChain(Generation generation) =>
        Redirect.AddGeneration(Name, generation.Number, Mark.ValueOf(generation.Tag), Mark.Mask, generation.Ports);

    /// <summary>Of the generations that are made from now on.</summary>
    public Driver Driver => Options switch
    {
        { Command: not null } => Commands,
        { Haproxy.Driver: DriverChoice.Systemd } => Units,
        _ => Processes,
    };

    /// <summary>Of one that is there: it may be of another kind, from before the pair's configuration was another.</summary>
    public Driver DriverOf(int number)
    {
        GenerationPlace place = PlaceOf(number);
        return File.Exists(place.CommandFile) ? Commands : File.Exists(place.UnitFile) ? Units : Processes;
    }

    private Driver Commands => _commands ??= new CommandDriver(this, Options.Command ?? new CommandOptions());

    private Driver Units => _units ??= new SystemdDriver(this);

    private Driver Processes => _processes ??= new HaproxyDriver(this);

    private Driver? _commands, _units, _processes;

    /// <inheritdoc cref="Driver.AdminOf"/>
    public AdminSocket? AdminOf(Generation generation, TimeSpan? patience = null) => DriverOf(generation.Number).AdminOf(generation, patience);

    public PortBlock BlockOf(Slot slot) => slot switch { Slot.Blue => Blue, Slot.Green => Green };

    /// <summary>The user's stats sockets lead to this generation; null: to none. Whatever stands in the way stops no flip.</summary>
    public void PointStats(int? number)
    {
        try
        {
            StatsLinks.Point(Runtime, Name, number);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Log.LogWarning("pair {Pair}: {Runtime}/{Pair}/stats-N.sock do not lead to generation {Number}: {Why}",
                Name, Runtime, Name, number, e.Message);
        }
    }

    /// <summary>One at a time puts links to front paths.</summary>
    public Lock FrontTurn { get; } = new();

    /// <summary>What a controller before this one may have left of a switch is finished: its front paths lead to this generation.</summary>
    public void PointFronts(Generation generation)
    {
        try
        {
            lock (FrontTurn)
            {
                foreach (UnixFront front in generation.UnixFronts) FrontLinks.Settle(front.Path);
                FrontLinks.Ensure([.. generation.UnixFronts.Where(f => FrontPath.Look(f.Path).Refusal(Name, null) is null)]);
            }
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            Log.LogWarning("pair {Pair}: its front paths do not all lead to {Generation} yet: {Why}", Name, generation, e.Message);
        }
    }

    public static string Holds(Generation? active) => active is null
        ? "no generation of the pair serves yet"
        : $"NEW connections go on to {active}, which was not touched";

    /// <summary>Established connections on a generation's private ports and front paths.</summary>
    public static int Connections(Generation generation)
    {
        int paths = UnixQueues.Clients(generation);
        if (generation.Ports.IsEmpty) return paths;
        using var sockets = new SockDiag();
        if (generation.IsOnFronts)
        {
            ProcessDescriptors held = ProcessDescriptors.ReadFamily(generation.Pid);
            return paths + sockets.Connections(SpanOf(generation)).Count(s => Owns(generation, s.Local.Port) && held.Holds(s.Inode));
        }
        return paths + sockets.CountByPort(TcpStates.Live, SpanOf(generation)).Where(p => Owns(generation, p.Key)).Sum(p => p.Value);
    }

    /// <summary>Its process, or a descendant, listens on one of them; or the kernel does not tell.</summary>
    public static bool Listens(Generation generation)
    {
        try
        {
            using var sockets = new SockDiag();
            return (!generation.UnixFronts.IsEmpty && UnixQueues.Listens(generation))
                || ProcessSockets.FamilyPorts(sockets, generation.Pid).Any(l => Owns(generation, l.Port))
                || (generation.Ports.Any(p => !p.Service.IsTcp) && ProcessSockets.ReceivingPorts(sockets, generation.Pid).Any(l => Owns(generation, l.Port)));
        }
        catch (KernelException)
        {
            return true;
        }
    }

    /// <summary>The smallest run of ports with all of a generation's: what the kernel filters by.</summary>
    public static PortBlock SpanOf(Generation generation)
    {
        int first = generation.Ports.Min(p => p.PrivatePort), last = generation.Ports.Max(p => p.PrivatePort);
        return new PortBlock(first, last - first + 1);
    }

    public static bool Owns(Generation generation, int port) => generation.Ports.Any(p => p.PrivatePort == port);
}
