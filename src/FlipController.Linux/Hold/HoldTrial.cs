using System.Collections.Immutable;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>Which hold works on this host, found without touching anything of it: in a network namespace that ends with the trial.</summary>
internal static partial class HoldTrial
{
    private const int NewNetwork = 0x40000000; // CLONE_NEWNET, include/uapi/linux/sched.h
    private const string Device = "trial";

    /// <returns>plug, queue, drop or none, and why.</returns>
    /// <exception cref="FlipException">What was named does not work.</exception>
    internal static (string Method, string Why) Run(string method)
    {
        (string, string) result = default;
        FlipException? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                result = RunHere(method);
            }
            catch (FlipException e)
            {
                failure = e;
            }
        }) { IsBackground = true, Name = "hold trial" };
        thread.Start(); // it takes the namespace with it when it ends
        thread.Join();
        return failure is null ? result : throw failure;
    }

    private static (string Method, string Why) RunHere(string method)
    {
        if (Unshare(NewNetwork) < 0) throw new KernelException("make a network namespace for a trial", Marshal.GetLastPInvokeError());
        using (var route = new RouteNetlink())
        {
            route.AddLink(Device, "bridge", queueLength: 1000, alias: "");
            route.SetUp(route.Links().First(l => l.Name == Device));
        }
        HoldChoice choice = HoldChoice.Prepare(method, new HoldScope(
            $"trial-{Environment.ProcessId}", [80], Incoming: true, Local: true, TimeSpan.FromMilliseconds(100), [], MeetsNewRules: true));
        using (choice.Hold)
        {
            choice.Hold.Rehearse();
            using DeadMan guard = DeadMan.Arm(choice.Hold.ForcedOpenings, choice.Hold.Scope.Max);
            return (choice.Hold.Method, choice.Why);
        }
    }

    [LibraryImport("libc", EntryPoint = "unshare", SetLastError = true)]
    private static partial int Unshare(int flags);
}
