using System.Text;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class StreamLineTests
{
    // The first three as 2.6.12 writes them; then as 3.2's and 2.4's src/stream.c do.
    public static TheoryData<string, string?> Lines => new()
    {
        { "0x558c2c1c6c80: proto=tcpv6 src=::ffff:127.0.0.1:40694 fe=t be=t srv=s ts=00 epoch=0 age=1s calls=2 rate=2 cpu=0 lat=0 rq[f=808000h,i=0,an=00h,rx=29s,wx=,ax=] rp[f=80008000h,i=0,an=00h,rx=29s,wx=,ax=] scf=[8,0h,fd=22] scb=[8,1h,fd=23] exp=0s rc=0 c_exp=",
            "0x558c2c1c6c80 ::ffff:127.0.0.1:40694=127.0.0.1:40694 t t s 1 22" },
        { "0x558c2c2f6660: proto=unix_stream src=unix:2 fe=t be=t srv=s ts=00 epoch=0 age=1m1s calls=2 rate=2 cpu=0 lat=0 rq[f=808000h,i=0,an=00h,rx=29s,wx=,ax=] rp[f=80008000h,i=0,an=00h,rx=29s,wx=,ax=] scf=[8,0h,fd=26] scb=[8,1h,fd=27] exp=0s rc=0 c_exp=",
            "0x558c2c2f6660 unix:2= t t s 61 26" },
        { "0x558c2c2f7300: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0 age=0s calls=1 rate=0 cpu=0 lat=0 rq[f=c08000h,i=0,an=00h,rx=,wx=,ax=] rp[f=80008002h,i=0,an=00h,rx=,wx=,ax=] scf=[8,200h,fd=28] scb=[8,1h,fd=-1] exp= rc=0 c_exp=",
            "own" },
        { "0x7f01: proto=tcpv4 src=192.0.2.7:1 fe=web be=<NONE> srv=<none> ts=00 epoch=0x2 age=1d2h calls=2 rate=2 cpu=0 lat=0 rq[f=848000h,i=0,an=00h,ax=] rp[f=80048000h,i=0,an=00h,ax=] scf=[8,0h,fd=1/22,rex=10s,wex=] scb=[8,1h,fd=1/23,rex=,wex=] exp=10s rc=0 c_exp= uri=\"GET http://x/ src=9 fe=no\"",
            "0x7f01 192.0.2.7:1=192.0.2.7:1 web <NONE> <none> 93600 22" },
        { "0x7f02: proto=tcpv6 src=[2001:db8::1]:443 fe=web be=app srv=s1 ts=00 age=2h3m new=field calls=2 rq[] rp[] s0=[7,80008h,fd=12,ex=] s1=[7,118h,fd=13,ex=] exp=9s",
            "0x7f02 [2001:db8::1]:443=[2001:db8::1]:443 web app s1 7380 12" },
        { "0x7f03: proto=? ts=00 epoch=0 age= calls=1", "0x7f03 =    -1 -1" }, // a health check, a Lua task
        { "", null },
        { "Session not found.", null },
        { "  flags=0x8, conn_retries=0", null },
    };

    [Theory]
    [MemberData(nameof(Lines))]
    public void A_line_gives_what_it_has(string line, string? expected)
    {
        bool is_ = StreamLine.TryParse(Encoding.Latin1.GetBytes(line), out StreamLine stream);
        Assert.Equal(expected is not null, is_);
        if (expected is null) return;
        string address = StreamLine.TryParseSource(stream.Source, out var peer, out int port) ? new System.Net.IPEndPoint(peer.ToIPAddress(), port).ToString() : "";
        Assert.Equal(expected, stream.IsOwn ? "own" : $"{Text(stream.Id)} {Text(stream.Source)}={address} {Text(stream.Frontend)} {Text(stream.Backend)} {Text(stream.Server)} {stream.AgeSeconds} {stream.ClientDescriptor}");

        static string Text(ReadOnlySpan<byte> bytes) => Encoding.Latin1.GetString(bytes);
    }

    [Theory]
    [InlineData("5", -1)]
    [InlineData("s", -1)]
    [InlineData("5y", -1)]
    [InlineData("0s", 0)]
    [InlineData("3m4s", 184)]
    public void An_age_has_units(string text, long seconds) => Assert.Equal(seconds, StreamLine.Seconds(Encoding.ASCII.GetBytes(text)));
}
