using System.Buffers.Text;
using System.Globalization;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// One line of <c>show sess</c>, read where it stands (src/stream.c, cli_io_handler_dump_sess). Fields are found by their names:
/// versions add some. <c>0x55d0: proto=tcpv4 src=127.0.0.1:1234 fe=web be=app srv=s1 ts=.. age=1m2s .. scf=[8,0h,fd=22] scb=[..] ..</c>
/// </summary>
public readonly ref struct StreamLine
{
    /// <summary>HAProxy's pointer to it, with its 0x. Used again as soon as the stream is gone.</summary>
    public ReadOnlySpan<byte> Id { get; private init; }
    /// <summary>As HAProxy knows the client, which behind the PROXY protocol is not who is connected; empty: it knows none.</summary>
    public ReadOnlySpan<byte> Source { get; private init; }
    public ReadOnlySpan<byte> Frontend { get; private init; }
    /// <summary><c>&lt;NONE&gt;</c>: none chosen yet.</summary>
    public ReadOnlySpan<byte> Backend { get; private init; }
    /// <summary><c>&lt;none&gt;</c>: none.</summary>
    public ReadOnlySpan<byte> Server { get; private init; }
    /// <summary>Whole seconds, cut to the two largest units of days, hours, minutes and seconds; -1: not told.</summary>
    public long AgeSeconds { get; private init; }
    /// <summary>HAProxy's descriptor for the client; -1: there is none.</summary>
    public int ClientDescriptor { get; private init; }

    /// <summary>A session of the stats socket, such as the one that asks: nobody's connection.</summary>
    public bool IsOwn => Frontend.SequenceEqual("GLOBAL"u8) && Backend.SequenceEqual("<NONE>"u8);

    /// <summary>False: no stream's line.</summary>
    public static bool TryParse(ReadOnlySpan<byte> line, out StreamLine stream)
    {
        stream = default;
        int colon = line.IndexOf((byte)':');
        if (colon < 3 || !line.StartsWith("0x"u8)) return false;
        stream = new StreamLine
        {
            Id = line[..colon], Source = Field(line, " src="u8), Frontend = Field(line, " fe="u8), Backend = Field(line, " be="u8),
            Server = Field(line, " srv="u8), AgeSeconds = Seconds(Field(line, " age="u8)), ClientDescriptor = Descriptor(line),
        };
        return true;
    }

    /// <summary>The address of a source: <c>127.0.0.1:1</c>, <c>::1:1</c>, <c>[::1]:1</c>; false for <c>unix:1</c>.</summary>
    public static bool TryParseSource(ReadOnlySpan<byte> source, out PeerAddress address, out int port)
    {
        (address, port) = (default, 0);
        int colon = source.LastIndexOf((byte)':');
        if (colon <= 0 || !Utf8Parser.TryParse(source[(colon + 1)..], out port, out int read) || read != source.Length - colon - 1
            || port is < 0 or > 65535) return false;
        ReadOnlySpan<byte> host = source[..colon].TrimStart((byte)'[').TrimEnd((byte)']');
        if (TryParseIPv4(host.StartsWith("::ffff:"u8) ? host[7..] : host, out address)) return true;
        Span<char> text = stackalloc char[64];
        if (host.Length > text.Length) return false;
        int count = Encoding.Latin1.GetChars(host, text);
        if (!System.Net.IPAddress.TryParse(text[..count], out System.Net.IPAddress? parsed)) return false;
        address = PeerAddress.Of(parsed);
        return true;
    }

    /// <summary>Most are IPv4, and IPAddress makes an object of each.</summary>
    private static bool TryParseIPv4(ReadOnlySpan<byte> text, out PeerAddress address)
    {
        address = default;
        Span<byte> bytes = stackalloc byte[4];
        for (int i = 0; i < 4; i++)
        {
            if (!Utf8Parser.TryParse(text, out bytes[i], out int read)) return false;
            text = text[read..];
            if (i == 3) break;
            if (text.IsEmpty || text[0] != '.') return false;
            text = text[1..];
        }
        if (!text.IsEmpty) return false;
        address = PeerAddress.Of(bytes);
        return true;
    }

    /// <summary><c>1d2h</c>, <c>3m4s</c>, <c>5s</c> (src/tools.c, human_time).</summary>
    internal static long Seconds(ReadOnlySpan<byte> text)
    {
        if (text.IsEmpty) return -1;
        long seconds = 0;
        while (!text.IsEmpty)
        {
            if (!Utf8Parser.TryParse(text, out long number, out int read) || read == text.Length) return -1;
            long unit = text[read] switch { (byte)'d' => 86400, (byte)'h' => 3600, (byte)'m' => 60, (byte)'s' => 1, _ => -1 };
            if (unit < 0 || number is < 0 or > int.MaxValue) return -1;
            seconds += number * unit;
            text = text[(read + 1)..];
        }
        return seconds;
    }

    private static ReadOnlySpan<byte> Field(ReadOnlySpan<byte> line, ReadOnlySpan<byte> name)
    {
        int begin = line.IndexOf(name);
        if (begin < 0) return default;
        ReadOnlySpan<byte> value = line[(begin + name.Length)..];
        int end = value.IndexOf((byte)' ');
        return end < 0 ? value : value[..end];
    }

    /// <summary><c>scf=[8,0h,fd=22]</c>; with thread groups <c>fd=1/22,rex=..]</c> (2.8); <c>s0=[7,80008h,fd=22,ex=]</c> before 2.6.</summary>
    private static int Descriptor(ReadOnlySpan<byte> line)
    {
        int begin = line.IndexOf(" scf=["u8);
        if (begin < 0) begin = line.IndexOf(" s0=["u8);
        if (begin < 0) return -1;
        ReadOnlySpan<byte> side = line[begin..];
        int end = side.IndexOf((byte)']');
        if (end >= 0) side = side[..end];
        int fd = side.IndexOf("fd="u8);
        if (fd < 0) return -1;
        side = side[(fd + 3)..];
        int comma = side.IndexOf((byte)',');
        if (comma >= 0) side = side[..comma];
        int slash = side.IndexOf((byte)'/');
        return int.TryParse(side[(slash + 1)..], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int descriptor) && descriptor >= 0
            ? descriptor
            : -1;
    }
}
