using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Fuzz;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests;

/// <summary>What spoiled input has found, one by one; <see cref="FuzzTests"/> goes on looking.</summary>
public sealed class SpoiledInputTests
{
    [Theory]
    [InlineData("9223372036854775807d2h", -1)]
    [InlineData("-5s", -1)]
    [InlineData("2147483647d", 2147483647L * 86400)]
    public void An_age_that_no_stream_has_is_not_told(string age, long seconds) => Assert.Equal(seconds, StreamLine.Seconds(Encoding.ASCII.GetBytes(age)));

    [Theory]
    [InlineData("127.0.0.1:-1")]
    [InlineData("127.0.0.1:65536")]
    public void A_port_that_is_none_makes_no_source(string source) => Assert.False(StreamLine.TryParseSource(Encoding.ASCII.GetBytes(source), out _, out _));

    [Fact]
    public void A_descriptor_below_zero_is_none()
    {
        Assert.True(StreamLine.TryParse("0x1: proto=tcpv4 src=1.2.3.4:5 fe=a scf=[8,0h,fd=-7]"u8, out StreamLine line));
        Assert.Equal(-1, line.ClientDescriptor);
    }

    [Fact(Timeout = 30_000)]
    public async Task More_answers_than_questions_are_an_error()
    {
        using var haproxy = new SpoiledHaproxy();
        haproxy.Say("\n> one\n\n> two\n\n> "u8.ToArray());
        var e = await Assert.ThrowsAsync<FlipException>(() => new AdminSocket(haproxy.Path).AnswersAsync(["show map"]));
        Assert.Contains("1 questions have 2 answers", e.Message);
    }

    [Fact]
    public void A_version_in_other_digits_than_ours_is_none() => Assert.Null(HaproxyVersion.Parse("HAProxy version ٣.٤ 2026/03/01\n"));

    [Fact]
    public void A_line_of_a_queue_that_is_cut_is_passed_over() =>
        Assert.Equal([new NfQueueLine(4601, 2, 9)], NfQueueList.Parse(" 4600 x 99999999999999999999 1 0 0 0 17 1\n 4601   5     2 2 65531     4     5       17  1\n"));

    [Fact]
    public void A_rule_of_somebody_else_in_our_table_is_passed_over_and_nonsense_is_an_error_in_words()
    {
        using JsonDocument foreign = JsonDocument.Parse("""
            {"nftables": [{"chain": {"name": "pair-edge"}}, {"chain": {"name": "generation-edge-7"}},
            {"rule": {"chain": "generation-edge-7", "comment": "*:80", "expr": [{"dnat": {"addr": "10.0.0.1"}}]}}, {"rule": {"chain": "pair-edge", "expr": [{"goto": {"target": "generation-edge-7"}}]}}]}
            """);
        RedirectState state = NftListing.Parse(foreign.RootElement);
        Assert.Equal(7, state.Pairs["edge"].Active);
        Assert.Empty(state.Pairs["edge"].Generations[7]);
        using JsonDocument nonsense = JsonDocument.Parse("{\"nftables\": [{\"rule\": {\"chain\": \"output\", \"expr\": 3}}]}");
        Assert.StartsWith("cannot read table inet flipcontroller: it is listed with something that is not ours (", Assert.Throws<FlipException>(() => NftListing.Parse(nonsense.RootElement)).Message);
    }

    [Theory]
    [InlineData("\"retired\": []", "\"retired\": [null]")]
    [InlineData("\"retired\": []", "\"retires\": []")]
    [InlineData("\"pair\": \"edge\"", "\"pair\": null")]
    public void A_state_with_a_gap_is_set_aside(string whole, string gap)
    {
        using var directory = new TempDir();
        var store = new PairStore(directory.Path, "edge");
        store.Save(PairState.Initial("edge"));
        string path = directory["pairs/edge/state.json"], text = File.ReadAllText(path);
        Assert.NotNull(store.Read(out _));
        Assert.Contains(whole, text);
        File.WriteAllText(path, text.Replace(whole, gap, StringComparison.Ordinal));
        Assert.Null(store.Read(out string? broken));
        Assert.StartsWith($"cannot read {path} (", broken);
        Assert.True(File.Exists($"{path}.broken"));
    }

    [Fact]
    public void What_is_kept_and_has_a_gap_is_not_kept()
    {
        using var directory = new TempDir();
        var store = new PairStore(directory.Path, "edge");
        File.WriteAllText(directory["pairs/edge/history.jsonl"], "{\"id\":4}\n{\"id\":5,\"trigger\":\"files\",\"from\":null,\"to\":7,\"outcome\":\"done\",\"started\":\"2026-11-01T12:00:00+00:00\",\"duration_ms\":8,"
            + "\"hold\":null,\"reason\":null,\"error\":null}\n");
        Assert.Equal([5], store.History().Select(f => f.Id));
        directory.Write("pairs/edge/generations/7.json", "{\"files\":[{\"path\":\"/a\"}],\"configSha256\":\"a\",\"contentSha256\":\"b\"}");
        Assert.Null(store.ReadSnapshot(7));
        directory.Write("pairs/edge/adoption.json", "{\"haproxy\":null,\"toldToStop\":false,\"unit\":null}");
        Assert.Null(store.ReadAdoption());
        var drains = new DrainLog(directory.Path, "edge");
        directory.Write("pairs/edge/drains/7.json", "{\"pair\":\"edge\",\"generation\":7}");
        Assert.Null(drains.Read(7));
    }
}
