using System.Buffers.Binary;
using System.Net;
using FlipController.Linux.Kernel;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

public sealed class LedgerBookTests
{
    private const uint Mask = 0x0fff0000;
    private static readonly uint[] s_marks = [0x01010000, 0x01020000];
    private const byte SynSent = 1, Established = 3, FinWait = 4; // TCP_CONNTRACK_*
    private const ushort New = 1 << 8, Delete = 1 << 8 | 2; // IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_DELETE

    private sealed record Entry(int Client, uint Id, byte State);

    /// <summary>
    /// A kernel played with: its table, the events that wait to be read, and dumps that come at any time between. Once everything is read the
    /// book says what the table has.
    /// </summary>
    [Fact]
    public void Dumps_and_events_in_any_order_end_in_the_truth()
    {
        Gen<(string What, int Client)[]> runs = (
            from what in Gen.Elements("open", "open", "establish", "finish", "forget", "read", "dump", "lose")
            from client in Gen.Choose(0, 9)
            select (what, client)).ArrayOf(200);
        Prop.ForAll(runs.ToArbitrary(), run => EndsInTheTruth(run)).QuickCheckThrowOnFailure();
    }

    private static bool EndsInTheTruth((string What, int Client)[] run)
    {
        var book = new LedgerBook();
        foreach (uint mark in s_marks) book.Add(mark, Mask);
        var table = new Dictionary<int, Entry>();
        var queue = new Queue<byte[]>();
        uint id = 0;
        foreach ((string what, int client) in run)
        {
            book.Now++;
            Entry? known = table.GetValueOrDefault(client);
            switch (what)
            {
                case "open":
                    if (known is { State: not FinWait }) break;
                    if (known is not null) queue.Enqueue(Event(Delete, NetlinkFlags.None, known));
                    table[client] = new Entry(client, ++id, SynSent);
                    queue.Enqueue(Event(New, NetlinkFlags.Create | NetlinkFlags.Exclusive, table[client]));
                    break;
                case "establish" when known is { State: SynSent }:
                case "finish" when known is { State: Established }:
                    table[client] = known with { State = what == "finish" ? FinWait : Established };
                    queue.Enqueue(Event(New, NetlinkFlags.None, table[client]));
                    break;
                case "forget" when known is not null:
                    table.Remove(client);
                    queue.Enqueue(Event(Delete, NetlinkFlags.None, known));
                    break;
                case "read":
                    if (queue.TryDequeue(out byte[]? one)) Assert.True(book.TakeEvent(one));
                    break;
                case "lose":
                    queue.Clear();
                    Dump(book, table.Values);
                    break;
                case "dump":
                    Dump(book, table.Values);
                    break;
            }
        }
        Dump(book, table.Values); // if only this once
        while (queue.TryDequeue(out byte[]? one)) Assert.True(book.TakeEvent(one));
        for (int i = 0; i < s_marks.Length; i++)
        {
            FollowedMark followed = book.Find(s_marks[i])!;
            Entry[] live = [.. table.Values.Where(e => e.Client % s_marks.Length == i && e.State != FinWait)];
            Assert.Equal((live.Length, live.Count(e => e.State == SynSent)), (followed.Live, followed.Opening));
            Assert.InRange(followed.Unheard, 0, followed.Live);
            foreach (Entry entry in table.Values.Where(e => e.Client % s_marks.Length == i))
                Assert.Equal(entry.State != FinWait, book.FirstSeen(s_marks[i], new IPEndPoint(IPAddress.Parse("10.0.0.1"), 1000 + entry.Client), 21000) is not null);
        }
        return true;
    }

    private static void Dump(LedgerBook book, IEnumerable<Entry> table)
    {
        book.BeginDump();
        foreach (Entry entry in table)
        {
            ConntrackEntry dumped = ConntrackEntry.Read(Event(New, NetlinkFlags.None, entry).AsSpan(16));
            if (dumped.IsLive) book.TakeDumped(dumped);
        }
        book.EndDump(book.Marks, DateTimeOffset.UnixEpoch);
    }

    private static byte[] Event(ushort type, NetlinkFlags flags, Entry entry)
    {
        NetlinkMessage message = new(new byte[256], type, flags);
        message.Header(2u); // struct nfgenmsg: AF_INET
        foreach (ushort tuple in (ushort[])[ConntrackEntry.TupleOriginal, ConntrackEntry.TupleReply])
        {
            int outer = message.BeginNest(tuple), part = message.BeginNest(1); // CTA_TUPLE_IP
            message.PutBigEndian(1, 0x0a000001); // CTA_IP_V4_SRC
            message.EndNest(part);
            part = message.BeginNest(2); // CTA_TUPLE_PROTO
            message.Put(2, BinaryPrimitives.ReverseEndianness((ushort)(tuple == ConntrackEntry.TupleOriginal ? 1000 + entry.Client : 21000))); // CTA_PROTO_SRC_PORT
            message.EndNest(part);
            message.EndNest(outer);
        }
        int info = message.BeginNest(4), tcp = message.BeginNest(1); // CTA_PROTOINFO, CTA_PROTOINFO_TCP
        message.Put(1, entry.State); // CTA_PROTOINFO_TCP_STATE
        message.EndNest(tcp);
        message.EndNest(info);
        message.PutBigEndian(ConntrackEntry.MarkAttribute, s_marks[entry.Client % s_marks.Length] | 0x7000_00aau); // and bits of somebody else
        message.PutBigEndian(12, entry.Id); // CTA_ID
        return message.Bytes.ToArray();
    }

    [Fact]
    public void Cut_off_messages_do_no_harm()
    {
        byte[] whole = Event(New, NetlinkFlags.Create | NetlinkFlags.Exclusive, new Entry(1, 1, Established));
        var book = new LedgerBook();
        foreach (uint mark in s_marks) book.Add(mark, Mask);
        for (int length = 0; length < whole.Length - 8; length++) Assert.Equal(length >= 16, book.TakeEvent(whole.AsSpan(0, length)));
        Assert.All(book.Marks, m => Assert.Equal(0, m.Live));
    }

    [Fact]
    public void The_filter_is_what_the_kernel_documents()
    {
        // sock_filter as `tcpdump -ddd` writes it: code jt jf k.
        Assert.Equal("""
            0 0 0 20
            1 0 0 8
            48 0 0 4294963212
            21 0 1 0
            6 0 0 0
            7 0 0 0
            64 0 0 4
            7 0 0 0
            135 0 0 0
            84 0 0 268369920
            21 0 1 16842752
            6 0 0 4294967295
            21 0 1 16908288
            6 0 0 4294967295
            135 0 0 0
            84 0 0 240
            21 0 1 16
            6 0 0 4294967295
            6 0 0 0
            """, string.Join('\n', MarkFilter.ProgramFor([(s_marks[0], Mask), (16u, 240u), (s_marks[1], Mask)])
            .Select(i => $"{i.Code} {i.IfTrue} {i.IfFalse} {i.Operand}")));
    }
}
