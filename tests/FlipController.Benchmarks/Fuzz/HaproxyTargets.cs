using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Haproxy.Runtime;
using static FlipController.Fuzz.FuzzTargets;

namespace FlipController.Fuzz;

/// <summary>What HAProxy answers on its admin socket.</summary>
internal static class HaproxyTargets
{
    private const string Stat = "# pxname,svname,qcur,slim,stot,status,type,econ,chkfail,check_status,last_chk,agent_status,last_agt,tracked,hrsp_5xx,req_tot,\n"
        + "web,FRONTEND,,2000,7,OPEN,0,,,,,,,,0,7,\napp,s1,0,,5,UP,2,0,0,L4OK,\"a, \"\"b\"\"\nc\",,,,0,,\napp,s2,0,5,5,DOWN 1/2,2,0,1,* L4CON,refused,INI,x,app/s1,0,,\n"
        + "app,BACKEND,0,200,5,UP,1,0,,,,,,,0,5,\n\n";
    private const string Info = "Name: HAProxy\nVersion: 2.6.12\nPid: 4711\nUptime_sec: 12\nCurrConns: 3\nMaxconn: 2000\nStopping: 1\nJobs: 4\nUnstoppable Jobs: 1\nListeners: 2\n"
        + "ConnRateLimit: 0\nCompressBpsRateLim: 1024\n\n";
    private const string Peers = "0x55f: [08/Nov/2026:12:00:00] id=flip disabled=0 flags=0x6003 resync_timeout=<PAST> task_calls=3\n"
        + "  0x560: id=g00001(local,inactive) addr=127.0.0.1:1 last_status=NONE\n  0x561: id=g00002(remote,active) addr=127.0.0.1:2 app_state=RUNNING last_status=ESTA last_hdshk=1s\n\n";
    private const string Servers = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result "
        + "srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n"
        + "3 app 1 s1 127.0.0.1 2 0 1 1 9 15 3 4 6 0 0 0 - 8080 - 0 0 - - 0\n3 app 2 s2 ::1 0 5 0 100 9 1 0 0 14 6 0 0 s.test 443 _http._tcp 1 0 - - 0\n\n";
    private const string Streams = "0x55d0: proto=tcpv4 src=127.0.0.1:1234 fe=web be=app srv=s1 ts=00 age=1m2s calls=3 scf=[8,0h,fd=22] scb=[8,0h,fd=23] exp=3s\n"
        + "0x55d1: proto=tcpv6 src=[::1]:99 fe=web be=<NONE> srv=<none> age=1d2h s0=[7,80008h,fd=1/24,ex=] s1=[0,1h,fd=-1]\n"
        + "0x55d2: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> age=0s scf=[8,0h,fd=3]\n\n";

    private static readonly string s_transcript = "\n> " + string.Join("\n> ",
        Servers, Stat, Info, "# id (file) description\n1 (/etc/hosts.map) pattern loaded from file '/etc/hosts.map' used by map at file '/r/1.cfg' line 3. curr_ver=0 next_ver=0 entry_cnt=2\n",
        "2 () acl 'src' file '/r/1.cfg' line 7. curr_ver=0 next_ver=0 entry_cnt=1\n", "# 1 (/etc/keys)\n1.0 c2VjcmV0\n1.1 c2VjcmV1\n", "# filename\n/etc/a.pem\n*/etc/b.pem\n",
        "# filename\n/etc/ca.pem - 2 certificate(s)\n", "", "/etc/list.txt\n", "Certificate ID key : 303b\n", "Resolvers section dns\n nameserver a:\n  sent: 3\n", "")
        + "\n> \x1e\n> SHA1 FingerPrint: 00ff\nStatus: used\n\n> ca\n\n> list\n\n> ocsp\n\n> \x1e\n> 0x55aa a.test b\n0x55ab c.test d\n\n> 0x55ac 10.0.0.0/8\n\n> ";

    public static IEnumerable<FuzzTarget> All(SpoiledHaproxy haproxy)
    {
        yield return new("stat", 60, Bytes(Stat), content =>
        {
            if (StatRow.Parse(Text(content)) is not { } rows) return false;
            long sum = 0;
            foreach (StatRow row in rows) sum += row.TotalSessions ^ row.Requests ^ row.Responses5xx ^ row.ConnectionErrors ^ row.Status.Length ^ row.Proxy.Length;
            Demand(ServerState.Of(rows).Length <= rows.Length, "more servers than rows");
            return true;
        });
        yield return new("info", 90, Bytes(Info), content => HaproxyInfo.Parse(Text(content)) is { } info && AdminSession.IsDrained(info) | true);
        yield return new("peers", 80, Bytes(Peers), content => PeersState.Parse(Text(content)).Length > 0);
        yield return new("stream-line", 150, Bytes(Streams.Split('\n')[..2]), content =>
        {
            if (!StreamLine.TryParse(content, out StreamLine line)) return false;
            Demand(line.AgeSeconds >= -1, $"an age of {line.AgeSeconds} s");
            Demand(line.ClientDescriptor >= -1, $"a descriptor {line.ClientDescriptor}");
            if (StreamLine.TryParseSource(line.Source, out PeerAddress peer, out int port))
                Demand(port is >= 0 and <= 65535 && peer.ToString().Length > 0, $"a port {port}");
            return true;
        });
        yield return new("admin-lines", 60, Bytes(Streams, s_transcript), Cut);
        // What the commands of one connection are answered, and every reader of that behind it.
        yield return new("admin-socket", 8, Bytes(Stat, Info, Peers, Streams), content => Asked(haproxy, content, async path =>
        {
            var admin = new AdminSocket(path);
            switch ((content.FirstOrDefault(), content.Length % 2))
            {
                case ((byte)'#', _): await admin.ServersAsync(); break;
                case ((byte)'N', _): await admin.ShowInfoAsync(); break;
                case (_, 0): await admin.PeersAsync(); break;
                default: _ = (await HaproxyStreams.ReadAsync(new AdminChannel(admin), default)).Count; break;
            }
        }));
        yield return new("admin-session", 8, Bytes($"\n> \n> {Info}> {Streams}> ", $"\n> \n> {Info}\n> {Streams}\n> "), content => Asked(haproxy, content, async path =>
        {
            await using AdminSession session = await new AdminSocket(path).OpenSessionAsync();
            await session.ShowInfoAsync();
            _ = (await HaproxyStreams.ReadAsync(new AdminChannel(session), default)).Samples.Count;
        }));
        yield return new("runtime-state", 6, Bytes(s_transcript), content => Asked(haproxy, content, async path =>
        {
            RuntimeState state = await RuntimeReading.ReadAsync(new AdminSocket(path), default);
            _ = RuntimeChanges.Between(state.AsConfigured(), state);
        }));
    }

    private static bool Asked(SpoiledHaproxy haproxy, byte[] content, Func<string, Task> ask)
    {
        haproxy.Say(content);
        try
        {
            ask(haproxy.Path).GetAwaiter().GetResult();
            return true;
        }
        catch (FlipException)
        {
            return false;
        }
    }

    /// <summary>In pieces of any length, as they come through a socket.</summary>
    private static bool Cut(byte[] content)
    {
        var lines = new AdminLines();
        int at = 0, length = 0;
        for (int step = 1; at < content.Length; step = step * 7 % 4093)
        {
            Memory<byte> room = lines.Room();
            int count = Math.Min(Math.Min(step, room.Length), content.Length - at);
            content.AsSpan(at, count).CopyTo(room.Span);
            lines.Added(count);
            at += count;
            while (lines.Next(interactive: content.Length % 2 == 0, out ReadOnlySpan<byte> line) is var piece and not AdminLines.Piece.None)
                length += piece == AdminLines.Piece.Prompt ? 2 : line.Length + 1;
        }
        Demand(length <= content.Length && (length == content.Length) == lines.IsEmpty, "bytes were lost or added");
        return true;
    }
}
