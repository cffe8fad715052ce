using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class SharedTablesTests
{
    private static readonly TablePeer Third = new("edge", "00ff00ff00ff00ff", 3);
    private static readonly SlotPlace Place = new(
        "/run/fc/edge/g00011", "/run/fc/edge/g00011.sock", new PortBlock(21000, 100), new HashSet<int>(), "lb1", Third);

    private const string Front = "frontend web\n bind :80\n";

    private static RenderedConfiguration Rendered(string text, SlotPlace? place = null)
    {
        ProjectionResult result = Projection.Render([new("/etc/haproxy/haproxy.cfg", Encoding.UTF8.GetBytes(text))], place ?? Place);
        Assert.Empty(result.Faults);
        return result.Configuration!;
    }

    private static IEnumerable<string> Notes(RenderedConfiguration rendered) => rendered.Notes.Select(n => n.ToString());

    private static string Text(RenderedConfiguration rendered, int file) => Encoding.UTF8.GetString(rendered.Files[file].Content);

    private static void Separate(string text, string? note, SlotPlace? place = null)
    {
        SlotPlace with = place ?? Place;
        RenderedConfiguration rendered = Rendered(text, with), alone = Rendered(text, with with { Tables = null });
        Assert.Equal(Text(alone, 0), Text(rendered, 0));
        Assert.Equal(Text(alone, 1), Text(rendered, 1));
        Assert.Equal(alone.LocalPeer, rendered.LocalPeer);
        Assert.Equal(note is null ? [] : [note], Notes(rendered).Except(Notes(alone)));
    }

    [Fact]
    public void Tables_without_peers_get_ours_and_our_file_has_the_section_and_the_name()
    {
        RenderedConfiguration rendered = Rendered("""
            global
             localpeer here
            frontend web
             bind :80
             stick-table type ip size 100k store http_req_rate(10s),gpc0 # one a client
            listen api
             bind :81
            	stick-table  type "string" len 64 size 1m   expire 30m srvkey addr nopurge write-to other
            backend other
             stick-table type ip size 1k expire 1m peers "mesh"
            backend last
             stick-table type ip size 1k
            """);
        Assert.Null(rendered.LocalPeer);
        Assert.Empty(rendered.LocalPeerOption);
        Assert.Empty(rendered.Notes);
        Assert.Equal("""
            global
            #  localpeer here
            frontend web
             bind :21000
             stick-table type ip size 100k store http_req_rate(10s),gpc0 peers flipcontroller # one a client
            listen api
             bind :21001
            	stick-table  type "string" len 64 size 1m   expire 30m srvkey addr nopurge write-to other peers flipcontroller
            backend other
             stick-table type ip size 1k expire 1m peers "mesh"
            backend last
             stick-table type ip size 1k peers flipcontroller
            """, Text(rendered, 1));
        string own = Text(rendered, 0);
        Assert.Contains("\n    localpeer edge-3-00ff00ff00ff00ff\n", own, StringComparison.Ordinal);
        Assert.EndsWith("\npeers flipcontroller\n" + string.Concat(Enumerable.Range(0, 8).Select(i =>
            $"    peer edge-{i}-00ff00ff00ff00ff abns@flipcontroller-edge-0aa85933-{i}\n")), own, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(" stick-table type ip size 1k peers p")]
    [InlineData(" stick-table peers p type ip size 1k")]
    [InlineData(" stick-table type ip size 1k recv-only")]
    [InlineData(" disabled\n stick-table type ip size 1k")]
    [InlineData(" # stick-table type ip size 1k")]
    [InlineData("[a scope]\n stick-table")]
    [InlineData("defaults\n timeout client 1s")]
    [InlineData("peers p\n table t type ip size 1k\n stick-table type ip size 1k")]
    public void What_has_peers_or_is_no_table_of_a_proxy_stays(string more) => Separate($"{Front}backend b\n{more}\n", null);

    [Theory]
    [InlineData("store peers")]
    [InlineData("write-to peers")]
    [InlineData("srvkey name len 20 expire \"$E\" store \"${S:-gpc0}\"")]
    public void Only_the_keyword_counts_and_values_may_be_variables(string more)
    {
        RenderedConfiguration rendered = Rendered($"{Front}backend b\n stick-table type ip size 1k {more}\n");
        Assert.Contains($"{more} peers flipcontroller\n", Text(rendered, 1), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\"$MORE\" p")]
    [InlineData("store \"${MORE[*]}\"")]
    public void A_line_that_only_a_variable_completes_stays_and_says_so(string more) => Separate(
        $"{Front}backend b\n stick-table type ip size 1k {more}\n",
        "/etc/haproxy/haproxy.cfg:4: this stick-table line is whole only with the value of a variable that is not known, "
        + "so the table begins empty with each generation (continuity.stick_tables)");

    [Fact]
    public void Peers_of_the_user_that_need_the_name_keep_it()
    {
        const string table = "backend b\n stick-table type ip size 1k\n";
        const string why = " and a process has one only, so stick tables without peers begin empty with each generation (continuity.stick_tables)";
        Separate($"{Front}{table}peers p\n peer lb1 :1024\n peer lb2 10.0.0.2:1024\n",
            "/etc/haproxy/haproxy.cfg:6: this entry needs the local peer name \"lb1\"" + why);
        Separate($"{Front}{table}peers p\n bind :1024\n server lb1\n", "/etc/haproxy/haproxy.cfg:7: this entry needs the local peer name \"lb1\"" + why);
        Separate($"global\n localpeer né\n{Front}{table}peers p\n peer né :1024\n",
            "/etc/haproxy/haproxy.cfg:8: this entry needs the local peer name \"né\"" + why);
    }

    [Fact]
    public void Peers_of_the_user_without_a_local_entry_are_in_nobodys_way()
    {
        foreach (string peers in new[] { "peers p\n peer lb2 10.0.0.2:1024\n", "peers p\n disabled\n peer lb1 :1024\n" })
            Assert.Contains("size 1k peers flipcontroller\n", Text(Rendered($"{Front} stick-table type ip size 1k\n{peers}"), 1), StringComparison.Ordinal);
    }

    [Fact]
    public void Names_that_are_taken_are_left_to_the_user()
    {
        Separate($"{Front} stick-table type ip size 1k\npeers flipcontroller\n peer lb2 10.0.0.2:1024\n",
            "/etc/haproxy/haproxy.cfg:4: a peers section of the name flipcontroller is in the way of our own, "
            + "so stick tables without peers begin empty with each generation (continuity.stick_tables)");
        Separate($"{Front} stick-table type ip size 1k\n http-request set-header X-At \"${{HAPROXY_LOCALPEER}}\"\n",
            "/etc/haproxy/haproxy.cfg:4: HAPROXY_LOCALPEER is to be \"lb1\" here, which takes the local peer name, "
            + "so stick tables without peers begin empty with each generation (continuity.stick_tables)");
        Assert.Empty(Rendered($"{Front} stick-table type ip size 1k\n # HAPROXY_LOCALPEER\n").Notes);
    }
}
