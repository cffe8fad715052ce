using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Linux.Units;

/// <summary>systemctl(1), and journalctl(1) for what a unit has said; each call is bounded.</summary>
public sealed record Systemctl(string Program = "systemctl", string Journal = "journalctl")
{
    // Whatever it is asked for here takes milliseconds; a manager that is busy (a daemon-reload of a large host) some seconds.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20), s_journalPatience = TimeSpan.FromSeconds(3);
    private const int MostLines = 50;

    public TimeSpan Patience { get; init; } = s_patience;

    public Task<ChildOutcome> RunAsync(CancellationToken stop, params ImmutableArray<string> arguments) =>
        new ChildProcess(Program, arguments) { Timeout = Patience }.SucceedAsync(stop);

    public async Task<UnitLook> ShowAsync(string unit, CancellationToken stop) =>
        UnitLook.Read(unit, (await RunAsync(stop, "show", "--no-pager", "-p", UnitLook.Asked, unit)).StandardOutput);

    /// <summary>The last lines that processes of one start of a unit wrote. What the journal does not give is nothing.</summary>
    public async Task<string> SaidAsync(string invocation, CancellationToken stop)
    {
        try
        {
            return (await new ChildProcess(Journal,
                ["--no-pager", "--quiet", "--output=cat", string.Create(CultureInfo.InvariantCulture, $"--lines={MostLines}"), $"_SYSTEMD_INVOCATION_ID={invocation}"])
            { Timeout = s_journalPatience }.SucceedAsync(stop)).StandardOutput;
        }
        catch (CommandFailedException)
        {
            return "";
        }
    }
}
