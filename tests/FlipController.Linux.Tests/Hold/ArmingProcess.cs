using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using FlipController.Linux.Hold;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>This very program as one that arms a switch, says so, and then waits for its end.</summary>
internal sealed class ArmingProcess : IDisposable
{
    internal const string Verb = "arm";

    private readonly Process _process;

    private ArmingProcess(Process process) => _process = process;

    /// <summary>Running, and armed.</summary>
    internal static async Task<ArmingProcess> StartAsync(string receiver, TimeSpan max, CancellationToken cancel)
    {
        var process = Process.Start(new ProcessStartInfo(Environment.ProcessPath!, [Verb, receiver, max.TotalMilliseconds.ToString(CultureInfo.InvariantCulture)])
        {
            RedirectStandardOutput = true,
        })!;
        var arming = new ArmingProcess(process);
        if (await process.StandardOutput.ReadLineAsync(cancel) == "armed") return arming;
        arming.Dispose();
        throw new InvalidOperationException("the arming process did not arm");
    }

    internal static int Run(string receiver, string max)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(receiver));
        using DeadMan deadMan = DeadMan.Arm([new ForcedOpening((int)socket.Handle, DeadManTests.Bytes)],
            TimeSpan.FromMilliseconds(double.Parse(max, CultureInfo.InvariantCulture)));
        Console.WriteLine("armed");
        Thread.Sleep(Timeout.Infinite);
        return 0;
    }

    internal void Signal(int signal) => Assert.True(Signals.Send(_process.Id, signal));

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
