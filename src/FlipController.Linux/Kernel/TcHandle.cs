using System.Globalization;

namespace FlipController.Linux.Kernel;

/// <summary>A qdisc's or class's number: <c>40:</c>, <c>40:3</c>, <c>root</c>. As tc(8) writes it, both halves in hexadecimal.</summary>
internal readonly record struct TcHandle(uint Value)
{
    internal static readonly TcHandle None = new(0); // TC_H_UNSPEC
    internal static readonly TcHandle Root = new(0xffffffff); // TC_H_ROOT, include/uapi/linux/pkt_sched.h

    internal TcHandle(ushort major, ushort minor) : this((uint)major << 16 | minor) { }

    /// <summary>Null: it is none.</summary>
    internal static TcHandle? Parse(string text)
    {
        if (text == "root") return Root;
        string[] halves = text.Split(':');
        if (halves.Length != 2 || halves[0].Length is < 1 or > 4 || halves[1].Length > 4) return null;
        return ushort.TryParse(halves[0], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort major)
            && ushort.TryParse(halves[1].Length == 0 ? "0" : halves[1], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort minor)
            && (major, minor) != (ushort.MaxValue, ushort.MaxValue)
            ? new TcHandle(major, minor) : null;
    }

    public override string ToString() => this == Root ? "root"
        : (Value & 0xffff) == 0 ? $"{Value >> 16:x}:" : $"{Value >> 16:x}:{Value & 0xffff:x}";
}
