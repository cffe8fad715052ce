using FlipController.Core;
using FlipController.Linux.Haproxy;

namespace FlipController.Linux.Units;

/// <summary>The unit that runs one generation: an instance of the template, which systemd starts when it is told to and then leaves alone.</summary>
public sealed record GenerationUnit(GenerationPlace Place, Systemctl Systemd)
{
    public const string Template = "flipcontroller-haproxy@.service";

    // systemd draws its conclusions, and journald writes down what was said, a moment after a process has ended.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(3), s_pause = TimeSpan.FromMilliseconds(100);

    /// <summary>
    /// PAIR-gNNNNN. A slot's name would not do: the next generation of a slot starts while an older one of it still drains.
    /// </summary>
    public string Name { get; } = NameOf(Place.Pair, Place.Name);

    public static string NameOf(string pair, string generation) =>
        Template.Replace("@", $"@{UnitText.Instance(pair, generation)}", StringComparison.Ordinal);

    /// <summary>The template as this version has it, in config/systemd.</summary>
    public static string Shipped()
    {
        using Stream text = typeof(GenerationUnit).Assembly.GetManifestResourceStream(Template)!;
        using var reader = new StreamReader(text);
        return reader.ReadToEnd();
    }

    /// <summary>Returns when systemd has run the program; whether that stays is another question.</summary>
    /// <returns>Its pid; 0: it has ended already.</returns>
    /// <exception cref="FlipException">What stands in the way, all of it, in one sentence.</exception>
    public async Task<int> StartAsync(CancellationToken stop)
    {
        UnitLook before = await AskedAsync(stop);
        if (before.Obstacles(Place) is { IsEmpty: false } obstacles) throw new FlipException(string.Join("; ", obstacles));
        string? refused = null;
        try
        {
            await Systemd.RunAsync(stop, "start", Name);
        }
        catch (CommandFailedException e) when (e.ExitCode is not null)
        {
            refused = e.Stderr.Trim().ReplaceLineEndings(" ");
        }
        catch (CommandFailedException e)
        {
            throw new FlipException($"cannot start {Name}: {e.Message}; `systemctl list-jobs` shows what systemd waits for", e);
        }
        UnitLook after = await AskedAsync(stop);
        return refused is null || after.InvocationId != before.InvocationId ? after.MainPid
            : throw new FlipException($"systemd does not start {Name}: {refused}"); // it did not come to a process
    }

    /// <summary>What the unit is now; one that was never started is read from the template for that.</summary>
    /// <exception cref="FlipException">systemd does not tell.</exception>
    public async Task<UnitLook> AskedAsync(CancellationToken stop)
    {
        try
        {
            return await Systemd.ShowAsync(Name, stop);
        }
        catch (CommandFailedException e)
        {
            throw new FlipException($"cannot ask systemd for {Name}: {e.Message}; `flipctl doctor` says what `haproxy.driver: systemd` needs, and `process` needs no systemd", e);
        }
    }

    /// <summary>How a process ended that was started, and what it said; empty: that is not known.</summary>
    public async Task<(string Ending, string Said)> EndedAsync(CancellationToken stop)
    {
        try
        {
            UnitLook look = await SettledAsync(stop);
            string said = "";
            for (long began = TimeProvider.System.GetTimestamp(); look.InvocationId.Length > 0; await Task.Delay(s_pause, stop))
            {
                said = await Systemd.SaidAsync(look.InvocationId, stop);
                if (said.Contains("[ALERT]", StringComparison.Ordinal) || TimeProvider.System.GetElapsedTime(began) > s_patience) break;
            }
            return (look.Ending, said);
        }
        catch (CommandFailedException e)
        {
            return (e.Message, "");
        }
    }

    /// <summary>
    /// Its process is gone: a start that systemd has not come to is taken back, what else is in its cgroup is ended, and that it failed
    /// is forgotten (systemctl(1), reset-failed), so that nothing of it is left. Nothing there is fine.
    /// </summary>
    /// <exception cref="CommandFailedException">systemd could not be asked, or does not do it.</exception>
    public async Task ClearAsync(CancellationToken stop)
    {
        UnitLook look = await Systemd.ShowAsync(Name, stop);
        if (look.IsRunning || look.HasJob)
        {
            await Systemd.RunAsync(stop, "stop", Name);
            look = await SettledAsync(stop);
        }
        if (look.ActiveState != "failed") return;
        try
        {
            await Systemd.RunAsync(stop, "reset-failed", Name);
        }
        catch (CommandFailedException) when (!stop.IsCancellationRequested)
        {
            // Somebody else did so meanwhile.
            if ((await Systemd.ShowAsync(Name, stop)).ActiveState == "failed") throw;
        }
    }

    /// <summary>Whoever holds a pidfd of a process knows of its end before systemd does.</summary>
    private async Task<UnitLook> SettledAsync(CancellationToken stop)
    {
        for (long began = TimeProvider.System.GetTimestamp(); ; await Task.Delay(s_pause, stop))
        {
            UnitLook look = await Systemd.ShowAsync(Name, stop);
            if (!look.IsRunning || TimeProvider.System.GetElapsedTime(began) > s_patience) return look;
        }
    }
}
