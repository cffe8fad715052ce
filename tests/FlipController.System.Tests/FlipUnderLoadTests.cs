using System.Diagnostics;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>The first promise: NEW connections move, and none is refused, reset or cut.</summary>
[Collection(Alone)]
public sealed class FlipUnderLoadTests
{
    [Fact(Timeout = 180_000)]
    public async Task A_hundred_flips_by_edits_lose_no_connection_and_leave_nothing_behind()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        int first = (await pair.FlipByEditAsync(Config("warm"), Edit.SymlinkSwap)).Active!.Number;
        IReadOnlyDictionary<string, int> descriptors = pair.DaemonDescriptors();
        await using LoadRun remote = await StartedAsync(pair.Load(600)), local = await StartedAsync(pair.LocalLoad(100));
        var clock = Stopwatch.StartNew();
        for (int i = 0; i < 100; i++) await pair.FlipByEditAsync(Config($"v{i}"), (Edit)(i % 3));
        Show($"100 flips in {clock.ElapsedMilliseconds} ms");
        LoadResult far = await PassedAsync(remote), near = await PassedAsync(local);

        // It keeps that many names, and calls the rest one.
        Assert.True(far.ServedBy.Count >= 64 && near.ServedBy.Count >= 60, $"clients met {far.ServedBy.Count} generations, local ones {near.ServedBy.Count}");
        PairStatus after = await pair.UntilAsync(s => s is { State: "steady", Retired: [], Previous: null }, "every old generation should drain");
        Assert.Equal(first + 100, after.Active!.Number);
        FlipRecord[] flips = [.. (await pair.HistoryAsync()).Flips.Where(f => f.To > first)];
        Assert.Equal(100, flips.Count(f => f is { Outcome: "done", Trigger: "files" }));
        long[] windows = [.. flips.Select(f => f.Hold!.WindowUs).Order()];
        Show($"window of the switch: p50 {windows[50]} us, p90 {windows[90]} us, max {windows[^1]} us");
        await pair.OneIsLeftAsync();
        await Eventually.True(() => pair.DaemonDescriptors().Values.Sum() <= descriptors.Values.Sum() + 4, Patience,
            () => $"more descriptors than before: {string.Join(", ", pair.DaemonDescriptors().Except(descriptors))}; before: {string.Join(", ", descriptors)}");
        Assert.InRange(Directory.GetDirectories(Path.Combine(pair.Files["run"], PairUnderTest.Name), "g*").Length, 1, 1);
    }

    [Fact(Timeout = 60_000)]
    public async Task After_flip_has_returned_every_new_connection_is_served_by_the_new_generation()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false });
        await using LoadRun load = await StartedAsync(pair.Load(800));
        for (int i = 2; i <= 6; i++)
        {
            pair.Write(Config($"v{i}"));
            await pair.FlipAsync();
            for (int n = 0; n < 50; n++) Assert.Equal($"v{i}", await pair.ServedByAsync());
        }
        LoadResult result = await PassedAsync(load);
        Assert.Equal(["v1", "v2", "v3", "v4", "v5", "v6"], result.ServedBy.Keys.Order());
        for (int i = 2; i <= 6; i++)
        {
            double last = result.ServedBy[$"v{i - 1}"].LastMs, first = result.ServedBy[$"v{i}"].FirstMs;
            // Requests are started in the order of their schedule; two processors may swap neighbours, and when the generator was late
            // those of all that time are neighbours.
            Assert.True(last - first < 10 + result.Lag.Max, $"a connection scheduled at {last} ms went to v{i - 1}, one at {first} ms to v{i} already");
        }
    }

    [Fact(Timeout = 60_000)]
    public async Task Of_a_burst_of_edits_the_last_one_wins_with_few_flips()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        for (int i = 0; i < 60; i++)
        {
            pair.Write(Config($"edit{i}"), (Edit)(i % 3));
            // An edit every 20 ms or so, some cut short by the next.
            long asked = load.Now.Requests;
            await Eventually.True(() => load.Now.Requests >= asked + 10, Patience, "the load goes on");
        }
        PairStatus status = await pair.FlipByEditAsync(Config("last"));
        Assert.Equal("last", await pair.ServedByAsync());
        status = await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the pair should rest");
        Assert.False(status.Pending);
        Assert.Null(status.Fault);
        FlipRecord[] flips = [.. (await pair.HistoryAsync()).Flips];
        Show($"61 edits made {flips.Length - 1} flips");
        Assert.All(flips, f => Assert.Equal("done", f.Outcome));
        Assert.InRange(flips.Length, 2, 31);
        Assert.Single(pair.HaproxyPids());
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_configuration_that_HAProxy_rejects_moves_nothing_and_the_corrected_one_does()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        pair.Write(Config("broken", frontend: "no-such-keyword 1"));
        PairStatus status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "the flip should fail");
        Assert.Contains("no-such-keyword", status.Fault, StringComparison.Ordinal);
        Assert.Contains(pair.ConfigFile, status.Fault, StringComparison.Ordinal);
        Said said = await pair.FlipctlAsync("flip", PairUnderTest.Name);
        Assert.Equal(1, said.ExitCode);
        Assert.Contains("no-such-keyword", said.Error, StringComparison.Ordinal);
        Assert.Equal("v1", await pair.ServedByAsync());
        Assert.Null((await pair.FlipByEditAsync(Config("mended"))).Fault);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task An_added_front_address_is_served_at_once_and_a_dropped_one_needs_consent()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        const string more = "bind :81,:::81 v6only";

        await pair.FlipByEditAsync(Config("two", more));
        foreach (var service in pair.Services)
        {
            using HttpClient client = pair.Client(new(service.Address, 81));
            Assert.Equal("two", (await client.GetAsync("/")).Headers.GetValues("X-Served-By").Single());
        }
        await using LoadRun added = await StartedAsync(pair.Load(100) with { Targets = [.. pair.Services.Select(s => new IPEndPoint(s.Address, 81))] });
        await pair.FlipByEditAsync(Config("still-two", more));
        await PassedAsync(added);

        pair.Write(Config("one"));
        PairStatus refused = await pair.UntilAsync(s => s.LastFlip is { Outcome: "failed", Trigger: "files" }, "the drop should be refused");
        Assert.Contains("no longer serves", refused.Fault, StringComparison.Ordinal);
        Assert.Contains("--allow-drop", refused.Fault, StringComparison.Ordinal);
        Said without = await pair.FlipctlAsync("flip", PairUnderTest.Name);
        Assert.Equal(1, without.ExitCode);
        Assert.Contains("*:81", without.Error, StringComparison.Ordinal);
        Assert.Equal("still-two", await pair.ServedByAsync());

        Said with = await pair.FlipctlAsync("--json", "flip", PairUnderTest.Name, "--allow-drop");
        Assert.Equal((0, ""), (with.ExitCode, with.Error));
        Assert.Equal("one", await pair.ServedByAsync());
        await Assert.ThrowsAnyAsync<SocketException>(() => pair.ConnectAsync(new(pair.Nets.ServerV4, 81)));
        Assert.Null((await pair.StatusAsync()).Fault);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_file_beside_the_configuration_that_is_written_all_the_time_keeps_no_change_waiting()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        using var enough = new CancellationTokenSource();
        Task noise = Task.Run(() =>
        {
            for (int i = 0; !enough.IsCancellationRequested; i++) File.WriteAllText(pair.Files["beside.log"], $"{i}");
        });
        await pair.FlipByEditAsync(Config("v2"));
        Assert.Equal("v2", await pair.ServedByAsync());
        await enough.CancelAsync();
        await noise;
    }

    [Fact(Timeout = 60_000)]
    public async Task A_renewed_certificate_is_a_flip_and_new_connections_get_it()
    {
        Require.Program("openssl");
        string config = "";
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { AlsoWatch = ["certs"] }, before: p =>
        {
            Certify(p, "old.example");
            p.Write(config = Config("tls", $"bind :443,:::443 v6only ssl crt {p.Files["certs"]}/site.pem"));
        });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        using var over = new CancellationTokenSource();
        Task<List<string>> shown = Task.Run(() => HandshakesAsync(pair, over.Token));
        Assert.Equal("CN=old.example", await CertificateAsync(pair, 0));

        int before = (await pair.StatusAsync()).Active!.Number;
        Certify(pair, "new.example");
        await pair.UntilAsync(s => s.Active!.Number == before + 1 && s.LastFlip is { Outcome: "done", Trigger: "files" }, "the new certificate should make a flip");
        for (int i = 0; i < 10; i++) Assert.Equal("CN=new.example", await CertificateAsync(pair, i));
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the old generation should drain");
        await over.CancelAsync();
        List<string> seen = await shown; // Throws when one failed.
        Show($"{seen.Count} TLS handshakes, none failed");
        Assert.Equal(["CN=old.example", "CN=new.example"], seen.Distinct());
        Assert.Equal(seen.IndexOf("CN=new.example") - 1, seen.LastIndexOf("CN=old.example"));
        await PassedAsync(load);
    }

    private static async Task<List<string>> HandshakesAsync(PairUnderTest pair, CancellationToken stop)
    {
        List<string> seen = [];
        while (!stop.IsCancellationRequested) seen.Add(await CertificateAsync(pair, seen.Count));
        return seen;
    }

    /// <summary>The subject of the certificate a NEW connection is shown.</summary>
    private static async Task<string> CertificateAsync(PairUnderTest pair, int turn)
    {
        using Socket socket = await pair.ConnectAsync(new(pair.Services[turn % 2].Address, 443));
        await using var tls = new SslStream(new NetworkStream(socket), false, (_, _, _, _) => true);
        await tls.AuthenticateAsClientAsync("service");
        await tls.WriteAsync("GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n"u8.ToArray());
        using var reader = new StreamReader(tls);
        Assert.StartsWith("HTTP/1.1 200 ", await reader.ReadToEndAsync(), StringComparison.Ordinal);
        return tls.RemoteCertificate!.Subject;
    }

    private static void Certify(PairUnderTest pair, string name)
    {
        Directory.CreateDirectory(pair.Files["certs"]);
        string key = pair.Files["key.pem"], certificate = pair.Files["crt.pem"];
        pair.Nets.Server.Exec("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", $"/CN={name}", "-keyout", key, "-out", certificate);
        string all = pair.Files.Write("all.pem", File.ReadAllText(certificate) + File.ReadAllText(key));
        File.Move(all, Path.Combine(pair.Files["certs"], "site.pem"), overwrite: true);
    }
}
