using System.Net.Http;
using System.Text.Json;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>Others on the machine: rules that take the pair's connections or its marks, and connections that take its ports.</summary>
public sealed class OthersTests
{
    private const int Limit = 60_000;

    [Fact(Timeout = Limit)]
    public async Task Rules_of_others_that_disturb_the_pair_are_told_by_status_and_doctor_until_they_are_gone()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        Assert.Empty((await pair.StatusAsync()).Warnings);
        pair.Netns.Exec("nft", "table ip docker { chain p { type nat hook output priority -100; tcp dport 8080 redirect to :99; }; }; "
            + "table ip early { chain p { type nat hook output priority -110; tcp dport 8000-9000 redirect to :99; }; }; "
            + "table ip routing { chain p { type route hook output priority -150; ct mark set meta mark; }; }");
        await pair.UntilAsync(s => s.Warnings.Length == 2);
        PairStatus status = await pair.StatusAsync();
        Assert.Matches("^the rule ip early p handle [0-9]+, `tcp dport 8000-9000 redirect to :99`, is met before ours .* takes NEW connections to 127.0.0.1:8080", status.Warnings[0]);
        Assert.Matches("^the rule ip routing p handle [0-9]+, `ct mark set meta mark`, sets the bits 0xffffffff .* 0x00ffff00 .*; set redirect.mark_mask", status.Warnings[1]);
        Assert.Contains("the rule ip early p handle", (await pair.FlipctlAsync("status", "edge")).Output.ReplaceLineEndings(" "));
        CheckLine[] doctor = await DoctorAsync(pair, "pair edge: rules of others");
        Assert.Equal(status.Warnings, doctor.Select(l => $"{l.Found}; {l.Remedy}"));
        Assert.All(doctor, l => Assert.True(l is { Ok: false, Warning: true }));

        // A flip goes on as ever, and ends no warning; the end of the rule does.
        pair.Save(TroubledPair.Serving("v2"));
        await pair.FlipsAsync(2);
        Assert.Equal(status.Warnings, (await pair.StatusAsync()).Warnings);
        pair.Netns.Exec("nft", "delete table ip early; delete table ip routing");
        await pair.UntilAsync(s => s.Warnings.IsEmpty);
        // Without a daemon, what its files say are the front addresses.
        pair.Daemon.Terminate();
        Assert.Equal(0, await pair.Daemon.Exit(TroubledPair.Soon));
        Assert.Equal(0, (await pair.FlipctlAsync("reset", "--yes")).Code);
        pair.Netns.Exec("nft", "table inet early { chain p { type nat hook output priority -110; tcp dport 8080 redirect to :99; }; }");
        Assert.Contains("takes NEW connections to 127.0.0.1:8080", Assert.Single(await DoctorAsync(pair, "pair edge: rules of others")).Found);
    }

    [Fact(Timeout = Limit)]
    public async Task A_new_pair_whose_ports_the_kernel_gives_away_is_refused_and_one_that_lives_goes_on_with_a_warning()
    {
        const string reserved = "net.ipv4.ip_local_reserved_ports", subject = "pair another: private ports of blue";
        await using TroubledPair pair = await TroubledPair.StartAsync();
        pair.Netns.Sysctl(reserved, "5000");
        pair.Dir.Write("other.cfg", TroubledPair.Serving("other", front: "127.0.0.1:8090"));
        string yaml = pair.YamlText() + $"  another:\n    haproxy: {{ config: [{pair.Dir["other.cfg"]}] }}\n    ports: {{ blue: 40000, green: 41000 }}\n";
        pair.Replace(pair.Yaml, yaml);
        Assert.Equal(0, (await pair.FlipctlAsync("check-config", pair.Yaml)).Code); // a matter of the host, not of the file
        Assert.Equal(200, (await pair.PostAsync("v1/reload")).Status);
        const string trouble = "the private ports 40000-40999 and 41000-41999 are within net.ipv4.ip_local_port_range 32768-60999";
        PairStatus another = await UntilAsync(s => s.State == "faulted");
        Assert.Contains(trouble, another.Fault);
        Assert.Contains("`sysctl -w net.ipv4.ip_local_reserved_ports=5000,40000-40999,41000-41999`), or choose others (pairs.another.ports)", another.Fault);
        Assert.Contains("no generation of the pair serves yet", another.Fault);
        Assert.Contains(trouble, (await pair.FlipctlAsync("--json", "plan", "another")).Output);
        Assert.True(Assert.Single(await DoctorAsync(pair, subject)) is { Ok: false, Warning: false });
        Assert.Equal("v1", pair.Get());

        pair.Netns.Sysctl(reserved, "5000,40000-40999,41000-41999");
        another = await UntilAsync(s => s.State == "steady"); // by itself
        Assert.Equal("other", pair.Get("127.0.0.1:8090"));
        Assert.Empty(another.Warnings);

        pair.Netns.Sysctl(reserved, "\n");
        Assert.Contains(trouble, Assert.Single((await UntilAsync(s => !s.Warnings.IsEmpty)).Warnings));
        CheckLine[] doctor = await DoctorAsync(pair, subject, "pair edge: private ports of blue", "pair edge: rules of others");
        Assert.Equal([(false, true), (true, false), (true, false)], doctor.OrderBy(l => l.Ok).Select(l => (l.Ok, l.Warning)));
        pair.Daemon.Terminate();
        Assert.Equal(0, await pair.Daemon.Exit(TroubledPair.Soon));
        await pair.StartDaemonAsync();
        Assert.Contains(trouble, Assert.Single((await UntilAsync(s => s.State == "steady")).Warnings));
        await pair.SaysAsync($"pair another: {trouble}");
        Assert.Equal("other", pair.Get("127.0.0.1:8090"));

        async Task<PairStatus> UntilAsync(Func<PairStatus, bool> condition)
        {
            string body = "";
            PairStatus? status = null;
            await Eventually.True(async () =>
            {
                (int code, body) = await pair.SendAsync(HttpMethod.Get, "v1/pairs/another");
                return code == 200 && condition(status = JsonSerializer.Deserialize(body, WireJson.Default.PairStatus)!);
            }, TroubledPair.Soon, () => $"{body}\n{pair.Log}");
            return status!;
        }
    }

    private static async Task<CheckLine[]> DoctorAsync(TroubledPair pair, params string[] subjects)
    {
        Outcome said = await pair.FlipctlAsync("doctor", "--config", pair.Yaml, "--json");
        return [.. JsonSerializer.Deserialize(said.Output, WireJson.Default.CheckReport)!.Lines.Where(l => subjects.Contains(l.Subject))];
    }
}
