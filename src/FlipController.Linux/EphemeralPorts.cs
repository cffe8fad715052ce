using System.Globalization;
using FlipController.Core;

namespace FlipController.Linux;

/// <summary>
/// The ports that the kernel gives to outgoing connections of this network namespace by itself, both families alike:
/// net.ipv4.ip_local_port_range without net.ipv4.ip_local_reserved_ports (ip-sysctl in the kernel's documentation).
/// </summary>
public sealed class EphemeralPorts
{
    private readonly int _first, _last;
    private readonly string _reserved;
    private readonly bool[] _isReserved = new bool[65536];

    private EphemeralPorts(int first, int last, string reserved)
    {
        (_first, _last, _reserved) = (first, last, reserved);
        foreach (string part in reserved.Split(',', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] ends = part.Split('-');
            if (int.TryParse(ends[0], out int from) && int.TryParse(ends[^1], out int to))
                for (int port = Math.Max(0, from); port <= Math.Min(65535, to); port++) _isReserved[port] = true;
        }
    }

    /// <summary>Null where the kernel does not tell.</summary>
    public static EphemeralPorts? Read()
    {
        string[] range = Line("ip_local_port_range").Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        return range.Length == 2 && int.TryParse(range[0], out int first) && int.TryParse(range[1], out int last)
            ? new EphemeralPorts(first, last, Line("ip_local_reserved_ports")) : null;
    }

    /// <summary>FIRST-LAST, as it is configured.</summary>
    public string Range => string.Create(CultureInfo.InvariantCulture, $"{_first}-{_last}");

    /// <summary>An outgoing connection may get one of them.</summary>
    public bool Meets(PortBlock block) => Enumerable.Range(block.First, block.Count).Any(p => p >= _first && p <= _last && !_isReserved[p]);

    /// <summary>The command that keeps these out as well, what is reserved already with them.</summary>
    public string Reserving(params IEnumerable<PortBlock> blocks) =>
        $"sysctl -w net.ipv4.ip_local_reserved_ports={string.Join(',', blocks.Select(b => b.ToString()).Prepend(_reserved).Where(p => p.Length > 0))}";

    private static string Line(string name)
    {
        try
        {
            return File.ReadAllText($"/proc/sys/net/ipv4/{name}").Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
