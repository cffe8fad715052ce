using System.Text;

namespace FlipController.Fuzz;

/// <summary>Everything that reads what somebody else has written: files, HAProxy's answers, the kernel's messages.</summary>
internal sealed class FuzzTargets : IDisposable
{
    private readonly SpoiledHaproxy _haproxy = new();
    private readonly StateTargets _state = new();
    private readonly KernelTargets _kernel = new();

    public FuzzTargets() => All = [.. FileTargets.All(), .. HaproxyTargets.All(_haproxy), .. _kernel.All(), .. _state.All()];

    public IReadOnlyList<FuzzTarget> All { get; }

    public void Dispose()
    {
        _haproxy.Dispose();
        _state.Dispose();
        _kernel.Dispose();
    }

    /// <summary>A byte a character.</summary>
    internal static byte[][] Bytes(params string[] texts) => [.. texts.Select(Encoding.Latin1.GetBytes)];

    /// <summary>Turned into text as the readers of files do it.</summary>
    internal static string Text(byte[] bytes) => Encoding.UTF8.GetString(bytes);

    internal static void Demand(bool holds, string what)
    {
        if (!holds) throw new InvalidOperationException(what);
    }
}
