using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Unmanaged;

/// <summary>
/// Brings an unmanaged HAProxy back, before NEW connections go to it: the unit when there is one, else its program with the
/// arguments it had, as a daemon of its own. One that listens already is taken as it is, so that all of this can be run again.
/// </summary>
public sealed class UnmanagedStart(Systemd systemd, TimeProvider time)
{
    private const int Reload = 12; // SIGUSR2: HAProxy's management.txt, 4
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(20);

    /// <summary>From its start until it listens on every front address.</summary>
    public TimeSpan ListenBound { get; init; } = TimeSpan.FromMinutes(2);

    /// <summary>
    /// How long a process with the same command line that neither listens nor serves yet is taken for one that is starting, and one
    /// that listens for one that is not who will serve.
    /// </summary>
    public TimeSpan StartingBound { get; init; } = TimeSpan.FromSeconds(10);

    /// <param name="recorded">The one that was adopted; null: only <paramref name="unit"/> is known.</param>
    /// <param name="unit">To be started in place of what is recorded.</param>
    /// <param name="ourPids">The generations' processes.</param>
    /// <returns>The one that listens on every service now.</returns>
    /// <exception cref="FlipException">It does not; NEW connections go where they went.</exception>
    public async Task<UnmanagedHaproxy> RunAsync(
        UnmanagedHaproxy? recorded, string? unit, IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids,
        Action<string> progress, CancellationToken stop)
    {
        var search = new UnmanagedSearch(systemd);
        unit ??= recorded?.Unit;
        UnmanagedFinding found = await StartedAsync(search, services, ourPids, stop);
        if (!found.Refusals.IsEmpty) throw new FlipException($"NEW connections cannot be given back: {string.Join(" | ", found.Refusals)}");
        // What listens already needs nothing of a unit that was merely named.
        if (unit is not null && (!found.IsWhole || unit == recorded?.Unit)) await systemd.ReleaseAsync(unit, stop);
        if (found.IsWhole) return found.Haproxy!;
        if (found.Haproxy is { } part && (unit is null || part.Unit != unit))
            throw new FlipException($"{part} listens on {string.Join(", ", found.Served)} and not on {string.Join(", ", found.Unserved)}, and "
                + "another one beside it would take a part of its connections; give it these addresses, or stop it, and release again. "
                + "NEW connections go to the pair as before");
        if (unit is not null)
        {
            progress($"{unit} is started");
            await ServeAsync(unit, recorded, stop);
        }
        else if (recorded is not null)
        {
            progress($"{recorded.Executable} is started");
            await ServeAsync(recorded, services, stop);
        }
        else
        {
            throw new FlipException($"nobody listens on {string.Join(", ", found.Unserved)} and nothing is known that could be started; "
                + "start a HAProxy there, or name its unit (--unit), and release again");
        }

        long began = time.GetTimestamp();
        while (true)
        {
            found = await StartedAsync(search, services, ourPids, stop);
            if (found.IsWhole) return found.Haproxy!;
            if (time.GetElapsedTime(began) > ListenBound)
                throw new FlipException($"{unit ?? recorded!.Executable} was started, but {Missing(found)} after "
                    + $"{Durations.Format(ListenBound)}. NEW connections go to the pair as before");
            await Task.Delay(s_pause, time, stop);
        }
    }

    /// <summary>What is found once the one that is in the middle of its start has come to its end.</summary>
    private async Task<UnmanagedFinding> StartedAsync(
        UnmanagedSearch search, IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids, CancellationToken stop)
    {
        long began = time.GetTimestamp();
        while (true)
        {
            UnmanagedFinding found = await search.FindAsync(services, ourPids, stop);
            if (!found.IsStarting || time.GetElapsedTime(began) > StartingBound) return found;
            await Task.Delay(s_pause, time, stop);
        }
    }

    private static string Missing(UnmanagedFinding found) => string.Join(" | ", found.Unserved.IsEmpty
        ? found.Refusals
        : found.Refusals.Prepend($"does not listen on {string.Join(", ", found.Unserved)} (does its configuration still have that?)"));

    private async Task ServeAsync(string unit, UnmanagedHaproxy? recorded, CancellationToken stop)
    {
        try
        {
            await systemd.ServeAsync(unit, stop);
        }
        catch (CommandFailedException e)
        {
            // systemctl only says where to read on; HAProxy itself says why, when it is about the file.
            string? why = recorded?.Unit == unit && !recorded.OwnRoot ? await RejectedAsync(recorded, stop) : null;
            throw new FlipException($"{unit} could not be started: {e.Message}{(why is null ? "" : $" | HAProxy says: {why}")}; "
                + "NEW connections go to the pair as before", e);
        }
    }

    private async Task ServeAsync(UnmanagedHaproxy recorded, IReadOnlyCollection<Service> services, CancellationToken stop)
    {
        if (recorded.OwnRoot)
            throw new FlipException($"{recorded} ran in a container and can only be started there; "
                + "start it there, and release again. NEW connections go to the pair as before");
        if (recorded.Uid != 0 && !DropsPrivileges(recorded))
            throw new FlipException($"{recorded} ran as user {recorded.Uid} and its configuration has no global `user`, so that it would run "
                + "as root now; start it as that user, and release again. NEW connections go to the pair as before");
        if (await RejectedAsync(recorded, stop) is { } why)
            throw new FlipException($"{recorded.Executable} would not start again, its configuration is not valid now: {why}; "
                + "NEW connections go to the pair as before");
        // A master that finishes starts a worker beside the one that finishes, and stays whose child it is.
        if (recorded.IsMasterWorker && await ReloadAsync(recorded.Main, stop)) return;
        ImmutableArray<string> arguments = StartArguments.Daemonised(recorded.Arguments, recorded.IsMasterWorker);
        if (await StartingAsync(recorded, arguments, services, stop)) return;
        ChildOutcome outcome = await Program(recorded, arguments).RunAsync(stop);
        if (outcome.ExitCode != 0)
            throw new FlipException($"{recorded.Executable} does not start (exit code {outcome.ExitCode}): {Instance.Told(outcome.Output)}; "
                + "NEW connections go to the pair as before");
    }

    /// <summary>False: it is dead.</summary>
    private async Task<bool> ReloadAsync(ProcessIdentity master, CancellationToken stop)
    {
        long began = time.GetTimestamp();
        while (master.IsAlive && !HaproxyProcess.Handles(master.Pid, Reload) && time.GetElapsedTime(began) < StartingBound)
            await Task.Delay(s_pause, time, stop);
        return master.Signal(Reload);
    }

    /// <summary>
    /// One that an earlier attempt started, which was killed before it could see it listen: a second one beside it would listen on the
    /// same addresses, and the kernel would give each a part of the connections.
    /// </summary>
    private async Task<bool> StartingAsync(
        UnmanagedHaproxy recorded, ImmutableArray<string> arguments, IReadOnlyCollection<Service> services, CancellationToken stop)
    {
        HashSet<ProcessIdentity> known = [recorded.Main, .. recorded.Listening];
        long began = time.GetTimestamp();
        while (true)
        {
            // Whoever has connections finishes what an earlier run of it began.
            HashSet<int> serving = [.. UnmanagedSearch.Connections(services, new HashSet<int>()).Select(c => c.Pid)];
            bool starting = HaproxyProcess.All().Any(p => p.Executable == recorded.Executable && p.Arguments.AsSpan().SequenceEqual(arguments.AsSpan())
                && !known.Contains(p.Identity) && !serving.Contains(p.Pid));
            // After the look at the processes, and whatever that found: it listens before it forks the daemon and ends, so that neither of
            // the two may have been seen.
            if (UnmanagedSearch.Listeners(services).Count > 0) return true;
            if (!starting) return false;
            if (time.GetElapsedTime(began) > StartingBound) return false;
            await Task.Delay(s_pause, time, stop);
        }
    }

    /// <summary>Null: HAProxy accepts its files; else its own words.</summary>
    private static async Task<string?> RejectedAsync(UnmanagedHaproxy recorded, CancellationToken stop)
    {
        ChildOutcome outcome = await (Program(recorded, StartArguments.Check(recorded.Arguments)) with { Polite = true }).RunAsync(stop);
        return outcome.ExitCode == 0 ? null : Instance.Told(outcome.Output);
    }

    private static ChildProcess Program(UnmanagedHaproxy recorded, ImmutableArray<string> arguments) =>
        new(recorded.Executable, arguments)
        {
            WorkingDirectory = recorded.WorkingDirectory, Beside = ChildEnvironment.Empty, Timeout = TimeSpan.FromMinutes(2),
            Environment = recorded.Environment.Select(v => v.Split('=', 2)).Where(v => v.Length == 2)
                .GroupBy(v => v[0]).ToDictionary(v => v.Key, v => v.First()[1]),
        };

    /// <summary>
    /// One of its files has a global <c>user</c> or <c>uid</c> (configuration manual, 3.1); a user of a userlist has a password, too.
    /// </summary>
    private static bool DropsPrivileges(UnmanagedHaproxy recorded)
    {
        for (int i = 0; i + 1 < recorded.Arguments.Length; i++)
        {
            if (recorded.Arguments[i] != "-f") continue;
            string path = Path.Combine(recorded.WorkingDirectory, recorded.Arguments[i + 1]);
            IEnumerable<string> files = Directory.Exists(path) ? Directory.EnumerateFiles(path) : [path];
            foreach (string file in files.Where(File.Exists))
                if (File.ReadLines(file).Any(l => l.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries) is
                        ["user" or "uid", _] or ["user" or "uid", _, ['#', ..], ..])) return true;
        }
        return false;
    }
}
