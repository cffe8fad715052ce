using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Unmanaged;

/// <param name="ActiveState">active, activating, reloading, deactivating, inactive or failed.</param>
/// <param name="Restart">As it counts now: a drop-in that has not been loaded does not.</param>
/// <param name="MainPid">0: none.</param>
public sealed record UnitState(int MainPid, string ActiveState, string Restart, string Type, string NotifyAccess);

/// <summary>systemd, asked through systemctl(1).</summary>
/// <param name="Program">To be found in PATH.</param>
/// <param name="Units">Where drop-ins live that a reboot forgets: systemd.unit(5).</param>
public sealed record Systemd(string Program = "systemctl", string Units = "/run/systemd/system")
{
    private const string DropInName = "50-flipcontroller.conf";

    /// <summary>The text of /proc/PID/cgroup; null: there is none.</summary>
    public Func<int, string?> CgroupOf { get; init; } = ReadCgroup;

    private string DropIn(string unit) => Path.Combine(Units, unit + ".d", DropInName);

    /// <summary>
    /// The service whose main process this is. Being in its control group is not enough: what an administrator started by hand may be
    /// in that of sshd or cron, and must not be handled by stopping those.
    /// </summary>
    public async Task<string?> UnitOfAsync(int pid, CancellationToken stop)
    {
        if (CgroupOf(pid) is not { } cgroup || UnitIn(cgroup) is not { } unit || !Directory.Exists(Units)) return null;
        try
        {
            return (await ShowAsync(unit, stop)).MainPid == pid ? unit : null;
        }
        catch (CommandFailedException e)
        {
            // Taken for one that nobody supervises, it would be cut and started again when it is told to finish.
            throw new FlipException($"cannot ask systemd whether process {pid} is {unit}: {e.Message}; nothing was changed", e);
        }
    }

    public async Task<UnitState> ShowAsync(string unit, CancellationToken stop)
    {
        ChildOutcome outcome = await RunAsync(stop, "show", "-p", "MainPID,ActiveState,Restart,Type,NotifyAccess", unit);
        Dictionary<string, string> values = [];
        foreach (string line in outcome.StandardOutput.Split('\n'))
            if (line.Split('=', 2) is [var name, var value]) values[name] = value;
        return new UnitState(
            int.Parse(values.GetValueOrDefault("MainPID", "0"), CultureInfo.InvariantCulture), values.GetValueOrDefault("ActiveState", ""),
            values.GetValueOrDefault("Restart", ""), values.GetValueOrDefault("Type", ""), values.GetValueOrDefault("NotifyAccess", ""));
    }

    /// <summary>
    /// Sees to it that the unit's HAProxy may finish: systemd neither starts it again (Restart=always, as Debian and HAProxy ship it)
    /// nor takes its end into its own hands. A master of -Ws says STOPPING=1 on SIGUSR1 (src/mworker.c, mworker_catch_sigterm), on
    /// which systemd waits TimeoutStopSec, 90 s by default, and kills what is left with its connections; told not to listen to the
    /// service (Type, NotifyAccess) it leaves it running, and a reload can bring it back. Until a reboot, or <see cref="ReleaseAsync"/>.
    /// </summary>
    public async Task LetFinishAsync(string unit, CancellationToken stop)
    {
        string type = (await ShowAsync(unit, stop)).Type;
        StringBuilder text = new("# Written when a pair was adopted from this unit; `flipctl release` removes it.\n[Service]\nRestart=no\n");
        // With a type that needs notifications, systemd would make NotifyAccess=none main again; forking has no use for them.
        if (type is "notify" or "notify-reload" or "exec" or "simple") text.Append("Type=simple\n");
        text.Append("NotifyAccess=none\nWatchdogSec=0\n");
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(DropIn(unit))!);
            AtomicFile.Write(DropIn(unit), Encoding.UTF8.GetBytes(text.ToString()));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot write {DropIn(unit)}, without which systemd would start {unit} again: {e.Message}; "
                + "nothing was told to stop. Give the daemon the right to write there", e);
        }
        await RunAsync(stop, "daemon-reload");
        UnitState now = await ShowAsync(unit, stop);
        if (now.Restart != "no" || now.Type is "notify" or "notify-reload")
            throw new FlipException($"{unit} still has Restart={now.Restart} and Type={now.Type} after {DropIn(unit)} was written and systemd "
                + $"told to read it, so that systemd would start it again or end its connections; nothing was told to stop. "
                + $"Look at `systemctl cat {unit}` for what overrides it");
    }

    /// <summary>What <see cref="LetFinishAsync"/> did is undone; nothing to undo is fine.</summary>
    public async Task ReleaseAsync(string unit, CancellationToken stop)
    {
        if (File.Exists(DropIn(unit))) File.Delete(DropIn(unit));
        string directory = Path.GetDirectoryName(DropIn(unit))!;
        if (Directory.Exists(directory) && !Directory.EnumerateFileSystemEntries(directory).Any()) Directory.Delete(directory);
        // Also when the file was gone already: the one who removed it may not have come this far.
        await RunAsync(stop, "daemon-reload");
    }

    /// <summary>
    /// The unit serves: one that runs (and finishes) is reloaded, which starts a worker beside the one that finishes; any other is started.
    /// </summary>
    public async Task ServeAsync(string unit, CancellationToken stop)
    {
        if ((await ShowAsync(unit, stop)).ActiveState is "active" or "reloading")
        {
            await RunAsync(stop, "reload", unit);
            return;
        }
        // A unit that failed too often is not started before that is forgotten; one that did not is no error.
        await new ChildProcess(Program, ["reset-failed", unit]).RunAsync(stop);
        await RunAsync(stop, "start", unit);
    }

    private Task<ChildOutcome> RunAsync(CancellationToken stop, params ImmutableArray<string> arguments) =>
        new ChildProcess(Program, arguments) { Timeout = TimeSpan.FromMinutes(2) }.SucceedAsync(stop);

    /// <summary>
    /// The service of the system's manager in a /proc/PID/cgroup, cgroups(7): the first component that is no slice, as systemd reads it
    /// (src/basic/cgroup-util.c, cg_path_get_unit). Null: a session, a scope, a container, a service of a user's own manager.
    /// </summary>
    public static string? UnitIn(string cgroup)
    {
        // HIERARCHY:CONTROLLERS:PATH; version 1 has systemd's own hierarchy by name, version 2 is the one without controllers, and where
        // both are mounted a process may have its place in one of them alone.
        string[][] lines = [.. cgroup.Split('\n').Select(l => l.Split(':', 3)).Where(l => l.Length == 3)];
        return lines.Where(l => l[1] == "name=systemd").Concat(lines.Where(l => l[1] == "")).Concat(lines)
            .Select(l => UnitAt(l[2])).FirstOrDefault(unit => unit is not null);
    }

    private static string? UnitAt(string path)
    {
        string[] parts = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        int first = Array.FindIndex(parts, p => !p.EndsWith(".slice", StringComparison.Ordinal));
        if (first < 0 || !parts[first].EndsWith(".service", StringComparison.Ordinal)) return null;
        // A name that could be mistaken for something of the kernel's is escaped by an underscore before it.
        string unit = parts[first].TrimStart('_');
        return unit.StartsWith("user@", StringComparison.Ordinal) || parts[0] == "user.slice" ? null : unit;
    }

    private static string? ReadCgroup(int pid)
    {
        try
        {
            return File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/cgroup"));
        }
        catch (IOException)
        {
            return null;
        }
    }
}
