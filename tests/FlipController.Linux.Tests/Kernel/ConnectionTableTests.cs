using System.Net;
using System.Runtime.CompilerServices;
using FlipController.Linux.Kernel;
using FsCheck;
using FsCheck.Fluent;
using Xunit;
using static FlipController.Linux.Kernel.ConnectionTable;

namespace FlipController.Linux.Tests.Kernel;

public sealed class ConnectionTableTests
{
    private static readonly string[] s_kinds = ["add", "remove", "sweep", "change"];

    [Fact]
    public void It_holds_what_a_dictionary_would()
    {
        // Keys that crowd around the end of the ring, wherever that is, with owners and ids to tell them apart.
        Gen<ulong> key = Gen.Elements<ulong>([0, 1, 2, 3, 62, 63, 64, 65, 126, 127, 128, ulong.MaxValue, ulong.MaxValue - 1]);
        Gen<(string Kind, ulong Key, uint Id, ushort Owner)[]> runs =
            (from kind in Gen.Frequency((6, Gen.Constant("add")), (3, Gen.Constant("remove")), (1, Gen.Elements(s_kinds)))
             from k in key
             from id in Gen.Choose(1, 40)
             from owner in Gen.Choose(0, 2)
             select (kind, k, (uint)id, (ushort)owner)).ArrayOf(400);
        Prop.ForAll(runs.ToArbitrary(), run => Agrees(run)).QuickCheckThrowOnFailure();
    }

    private static bool Agrees((string Kind, ulong Key, uint Id, ushort Owner)[] run)
    {
        var table = new ConnectionTable();
        var model = new Dictionary<(ulong Key, uint Id), Connection>();
        long now = 0;
        foreach ((string kind, ulong key, uint id, ushort owner) in run)
        {
            now++;
            switch (kind)
            {
                case "add":
                    if (model.TryAdd((key, id), new Connection(key, id, owner, ConnectionFlags.Used, 0, now))) table.Add(model[(key, id)]);
                    break;
                case "remove":
                    Assert.Equal(model.Remove((key, id)), table.Remove(key, id));
                    break;
                case "sweep":
                    foreach ((ulong, uint) gone in model.Where(c => c.Value.Owner == owner).Select(c => c.Key).ToArray()) model.Remove(gone);
                    table.Sweep(c => c.Owner == owner);
                    break;
                case "change":
                    ref Connection place = ref table.Find(key, id);
                    if (Unsafe.IsNullRef(ref place)) break;
                    place.Owner = owner;
                    model[(key, id)] = place;
                    break;
            }
            Assert.Equal(model.Count, table.Count);
            Assert.True(table.Count * 4 <= table.Capacity * 3);
        }
        foreach (((ulong key, uint id), Connection connection) in model) Assert.Equal(connection, table.Find(key, id));
        foreach (IGrouping<(ulong Key, ushort Owner), Connection> same in model.Values.GroupBy(c => (c.Key, c.Owner)))
            Assert.Equal(same.MinBy(c => c.FirstSeen), table.Oldest(same.Key.Key, same.Key.Owner));
        Assert.True(Unsafe.IsNullRef(ref table.Find(5, 1)));
        Assert.Null(table.Oldest(5, 0));
        return true;
    }

    [Fact]
    public void It_takes_24_bytes_each_and_gives_them_back()
    {
        Assert.Equal(24, Unsafe.SizeOf<Connection>());
        var table = new ConnectionTable();
        for (uint i = 1; i <= 100_000; i++) table.Add(new Connection(i * 0x9e3779b97f4a7c15, i, 0, ConnectionFlags.Used, 0, i));
        Assert.Equal(262_144, table.Capacity);
        table.Sweep(c => c.Id > 10);
        Assert.Equal(10, table.Count);
        Assert.True(table.Capacity <= 128);
    }

    [Fact]
    public void Both_ways_to_write_an_ipv4_client_are_one_key()
    {
        (ulong, ulong) seed = (0x0123456789abcdef, 0xfedcba9876543210);
        ulong four = Peer.Of(IPEndPoint.Parse("192.0.2.7:1234")).Key(21000, seed);
        Assert.Equal(four, Peer.Of(IPEndPoint.Parse("[::ffff:192.0.2.7]:1234")).Key(21000, seed));
        string[] others = ["192.0.2.8:1234", "192.0.2.7:1235", "[::192.0.2.7]:1234", "[2001:db8::1]:1234", "[2001:db8::2]:1234", "[2001:db8:0:1::1]:1234"];
        ulong[] keys = [four, .. others.Select(o => Peer.Of(IPEndPoint.Parse(o)).Key(21000, seed)), Peer.Of(IPEndPoint.Parse("192.0.2.7:1234")).Key(21001, seed)];
        Assert.Equal(keys.Length, keys.Distinct().Count());
        Assert.All(keys, key => Assert.NotEqual(0ul, key >> 32));
        Assert.Equal(IPAddress.Parse("192.0.2.7"), Peer.Of(IPEndPoint.Parse("[::ffff:192.0.2.7]:1234")).Address);
        Assert.Equal(IPAddress.Parse("2001:db8::1"), Peer.Of(IPEndPoint.Parse("[2001:db8::1]:1234")).Address);
    }
}
