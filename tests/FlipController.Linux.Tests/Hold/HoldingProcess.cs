using System.Diagnostics;
using System.Globalization;
using FlipController.Linux.Hold;
using FlipController.Linux.Tests.Kernel;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>This very program as one that closes a queue hold in a namespace, its dead-man's switch armed, and never opens it.</summary>
internal sealed class HoldingProcess : IDisposable
{
    internal const string Verb = "hold", Owner = "doomed";
    internal const int Kill = 9, Stop = 19; // SIGKILL, SIGSTOP

    private readonly Process _process;

    private HoldingProcess(Process process) => _process = process;

    /// <summary>Running, and the port is held.</summary>
    internal static HoldingProcess Start(TestNetwork network, int port, TimeSpan max)
    {
        string[] numbers = [.. new[] { port, max.TotalMilliseconds }.Select(number => number.ToString(CultureInfo.InvariantCulture))];
        var process = Process.Start(new ProcessStartInfo("ip", ["netns", "exec", network.Name, Environment.ProcessPath!, Verb, .. numbers])
        {
            RedirectStandardOutput = true,
        })!;
        HoldingProcess holding = new(process);
        if (process.StandardOutput.ReadLine() == "held") return holding;
        holding.Dispose();
        throw new InvalidOperationException("the holding process did not hold");
    }

    internal static int Run(string port, string max)
    {
        TimeSpan time = TimeSpan.FromMilliseconds(double.Parse(max, CultureInfo.InvariantCulture));
        using QueueHold hold = QueueHold.Prepare(
            new HoldScope(Owner, [int.Parse(port, CultureInfo.InvariantCulture)], Incoming: true, Local: true, time, []));
        hold.Rehearse();
        using DeadMan deadMan = DeadMan.Arm(hold.ForcedOpenings, time);
        if (hold.Close() != 0) throw hold.Failure;
        Console.WriteLine("held");
        Thread.Sleep(Timeout.Infinite);
        return 0;
    }

    internal void Signal(int signal) => Assert.True(Signals.Send(_process.Id, signal));

    internal void WaitForEnd() => _process.WaitForExit();

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
