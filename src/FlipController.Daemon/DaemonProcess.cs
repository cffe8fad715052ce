using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Daemon.Handover;
using FlipController.Daemon.Keepalived;
using FlipController.Daemon.Peer;
using FlipController.Linux;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Serilog;
using Serilog.Events;
using Serilog.Formatting.Json;

namespace FlipController.Daemon;

internal sealed record ServiceArguments(string ConfigurationFile, bool LogJson, string? LogFile, bool Verbose);

/// <summary>The daemon from start to end, composed by hand, top to bottom.</summary>
internal static class DaemonProcess
{
    private const int Done = 0, Failed = 1, BadConfiguration = 2;
    private const long LargestRequestBytes = 64 * 1024;

    public static async Task<int> RunAsync(ServiceArguments arguments, CancellationToken stop)
    {
        var notify = new ServiceNotify();
        using Serilog.Core.Logger serilog = Logger(arguments);
        using var logging = new Serilog.Extensions.Logging.SerilogLoggerFactory(serilog);
        Microsoft.Extensions.Logging.ILogger log = logging.CreateLogger("flipcontrollerd");
        string file = Path.GetFullPath(arguments.ConfigurationFile);
        ConfigurationResult read = YamlFile.ReadConfiguration(file);
        if (read.Configuration is not { } configuration)
        {
            foreach (ConfigurationFault fault in read.Faults) Console.Error.WriteLine(fault);
            Console.Error.WriteLine($"flipcontrollerd: {read.Faults.Length} faults in {file}; nothing was started or changed. "
                + $"`flipctl check-config {file}` checks it again.");
            return BadConfiguration;
        }
        BePolite();
        try
        {
            using StateLock _ = StateLock.Take(configuration.State);
            await RefuseOccupiedAsync(configuration.Control.Socket);
            await using var node = new Node(configuration, TimeProvider.System, log);
            node.Begin();
            OpenHolds(log); // before anything else: somebody may still wait for a daemon that was killed
            using var redirects = new Redirects(configuration.Runtime);
            using ForeignRules others = ForeignRules.Open();
            using var deaths = new DeathWatch();
            Fleet.EnsureRuntime(configuration.Runtime);
            SteadyTime time = SteadyTime.Begin(TimeProvider.System, Path.Combine(configuration.Runtime, "clock"), out TimeSpan setBy);
            if (setBy != TimeSpan.Zero)
                log.LogWarning(new EventId(7, "ClockSet"), "the clock was set by {Seconds} s since the daemon started last; deadlines that run come as long from now as they would have", setBy.TotalSeconds);
            using ConntrackLedger? ledger = ConntrackLedger.Open(time);
            ledger?.Listen();
            await using PeerChannel? peer = configuration.Peer is { } other ? new PeerChannel(other, log) : null;
            await using var fleet = new Fleet(configuration, file, redirects, others, deaths, ledger, time, setBy, log) { Restraint = node.RestraintOf };
            using var stopping = CancellationTokenSource.CreateLinkedTokenSource(stop);
            using PosixSignalRegistration term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, c => Stop(c, stopping));
            using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, c => Stop(c, stopping));
            using PosixSignalRegistration hangup = PosixSignalRegistration.Create(PosixSignal.SIGHUP, c => Reload(c, fleet, notify, log));
            using Socket control = SharedSocket.Bind(configuration.Control.Socket, configuration.Control.Group);
            await fleet.StartAsync();
            using NftWatch rules = NftWatch.Open(fleet.RulesChanged, others.Changed);
            node.Run(fleet, peer);
            fleet.RulesChanged(); // what was done between the start of the first pair and now
            await using NodeHandover? handover = configuration.Handover is { } options && peer is not null
                ? new NodeHandover(configuration, options, fleet, peer.Client, node, time, log)
                : null;
            handover?.Start(peer!.Server);
            await using WebApplication app = Api(configuration, control, fleet, node, handover, log, stopping.Token);
            await app.StartAsync(CancellationToken.None);
            if (peer is not null) await peer.Server.ListenAsync(stopping.Token);
            notify.Send("READY=1\nSTATUS=" + $"{configuration.Pairs.Count} pairs");
            log.LogInformation(new EventId(1, "Started"), "flipcontrollerd serves {Pairs} pairs on {Socket}",
                configuration.Pairs.Count, configuration.Control.Socket);
            int code = await UntilAskedAsync(fleet, stopping.Token, log);
            notify.Send("STOPPING=1");
            await stopping.CancelAsync();
            await app.StopAsync(CancellationToken.None);
            if (peer is not null) await peer.Server.DisposeAsync();
            File.Delete(configuration.Control.Socket);
            log.LogInformation(new EventId(2, "Stopped"), "flipcontrollerd ends; every HAProxy and every rule stays as it is");
            return code;
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException or SocketException)
        {
            log.LogCritical(new EventId(3, "CannotRun"),
                "flipcontrollerd cannot run: {Why} `flipctl doctor --config {File}` looks at everything it needs.", e.Message, file);
            return Failed;
        }
    }

    /// <summary>Its failure keeps nobody from being served.</summary>
    private static void OpenHolds(Microsoft.Extensions.Logging.ILogger log)
    {
        try
        {
            foreach (string hold in HoldTraces.Remove()) log.LogWarning(new EventId(5, "Opened"), "{Hold}", hold);
        }
        catch (FlipException e)
        {
            log.LogError(new EventId(6, "NotOpened"), "holds of processes that are gone could not all be removed: {Why}", e.Message);
        }
    }

    /// <summary>The HAProxys have the traffic; whatever the daemon does beside the switch itself can wait for them.</summary>
    private static void BePolite()
    {
        const int niceness = 5;
        try
        {
            ProcessIdentity.Read(Environment.ProcessId)?.SetNiceness(niceness);
        }
        catch (KernelException)
        {
            // Not allowed to: then it competes as any other process does.
        }
    }

    private static async Task<int> UntilAskedAsync(Fleet fleet, CancellationToken stop, Microsoft.Extensions.Logging.ILogger log)
    {
        var asked = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using CancellationTokenRegistration _ = stop.Register(asked.SetResult);
        if (await Task.WhenAny(asked.Task, fleet.Broken) == asked.Task) return Done;
        log.LogCritical(new EventId(4, "Broken"), "flipcontrollerd ends so that a restart can take up: {Why}", await fleet.Broken);
        return Failed;
    }

    private static void Stop(PosixSignalContext context, CancellationTokenSource stopping)
    {
        context.Cancel = true;
        stopping.Cancel();
    }

    private static void Reload(PosixSignalContext context, Fleet fleet, ServiceNotify notify, Microsoft.Extensions.Logging.ILogger log)
    {
        context.Cancel = true;
        notify.Send($"RELOADING=1\nMONOTONIC_USEC={Environment.TickCount64 * 1000}");
        fleet.ReloadAsync().ContinueWith(
            task =>
            {
                if (task.Exception is { } e) log.LogError(e.InnerException, "the reload failed");
                notify.Send("READY=1");
            },
            TaskScheduler.Default);
    }

    private static Serilog.Core.Logger Logger(ServiceArguments arguments)
    {
        LoggerConfiguration configuration = new LoggerConfiguration()
            .MinimumLevel.Is(arguments.Verbose ? LogEventLevel.Debug : LogEventLevel.Information)
            .MinimumLevel.Override("Microsoft", LogEventLevel.Warning);
        const string template = "{Timestamp:yyyy-MM-ddTHH:mm:ss.fffzzz} {Level:u3} {Message:l}{NewLine}{Exception}";
        if (arguments.LogJson) configuration.WriteTo.Console(new JsonFormatter(renderMessage: true));
        else configuration.WriteTo.Console(outputTemplate: template, formatProvider: System.Globalization.CultureInfo.InvariantCulture);
        if (arguments.LogFile is { } path)
            configuration.WriteTo.File(path, outputTemplate: template, formatProvider: System.Globalization.CultureInfo.InvariantCulture,
                rollingInterval: RollingInterval.Day, retainedFileCountLimit: 14);
        return configuration.CreateLogger();
    }

    /// <summary>A socket nobody answers on is left over and removed; one that answers belongs to a daemon that runs.</summary>
    private static async Task RefuseOccupiedAsync(string path)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (!File.Exists(path)) return;
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await probe.ConnectAsync(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException)
        {
            File.Delete(path);
            return;
        }
        throw new FlipException(
            $"cannot take the control socket {path}: another daemon answers on it; that one goes on, this one did nothing. "
            + "Stop it, or set control.socket.");
    }

    private static WebApplication Api(
        Configuration configuration, Socket control, Fleet fleet, Node node, NodeHandover? handover, Microsoft.Extensions.Logging.ILogger log, CancellationToken stopping)
    {
        WebApplicationBuilder builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = LargestRequestBytes;
            kestrel.Limits.MaxConcurrentConnections = 256;
            kestrel.ListenHandle((ulong)control.Handle, o => o.Protocols = HttpProtocols.Http1);
            if (configuration.Metrics is { } metrics)
                kestrel.Listen(IPEndPoint.Parse(metrics.Listen), o => o.Protocols = HttpProtocols.Http1);
        });
        builder.Services.AddRoutingCore();
        // The daemon's own signal handling decides when it ends.
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        WebApplication app = builder.Build();
        app.UseRouting();
        ControlApi.Map(app, fleet, node, handover, log, stopping);
        return app;
    }
}
