using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>TLS sessions that clients resume on the generation after the one that gave them the ticket.</summary>
public sealed class TlsContinuityTests
{
    private const int Limit = 60_000;

    private static async Task<PairUnderTest> StartedAsync(bool withKeys, string rule)
    {
        Require.Program("openssl");
        Require.Program("socat");
        return await PairUnderTest.StartAsync(new PairYaml { Continuity = $"{{ runtime_changes: {rule} }}", FlipsByItself = false }, before: pair =>
        {
            pair.Files.Write("cert.pem", Certificate());
            pair.Files.Write("ticket.keys", string.Concat(Enumerable.Range(0, 3).Select(_ => Key() + "\n")));
            string keys = withKeys ? $" tls-ticket-keys {pair.Files["ticket.keys"]}" : "";
            pair.Write(PairUnderTest.Config("v1", frontend: $"bind :443 ssl crt {pair.Files["cert.pem"]}{keys}"));
        });
    }

    private static string Key() => Convert.ToBase64String(RandomNumberGenerator.GetBytes(48));

    private static string Certificate()
    {
        using RSA key = RSA.Create(2048);
        var request = new CertificateRequest("CN=example.org", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        using X509Certificate2 certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
        return $"{certificate.ExportCertificatePem()}\n{key.ExportRSAPrivateKeyPem()}\n";
    }

    /// <summary>One HTTPS request of a client that keeps its session in a file; true: a session was resumed.</summary>
    private static bool Connect(PairUnderTest pair, string version, bool resume)
    {
        string file = pair.Files[$"session{version}"];
        string said = pair.Nets.Client.Exec("sh", "-c",
            $"printf 'GET / HTTP/1.1\\r\\nHost: example.org\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -connect {pair.Nets.ServerV4}:443 "
            + $"-{version} -ign_eof {(resume ? $"-sess_in {file}" : $"-sess_out {file}")} 2>&1");
        Assert.Contains("HTTP/1.1 200", said);
        Assert.True(File.Exists(file), said);
        return said.Contains("\nReused, TLSv1", StringComparison.Ordinal);
    }

    [Theory(Timeout = Limit)]
    [InlineData("tls1_2")]
    [InlineData("tls1_3")]
    public async Task With_ticket_keys_from_a_file_a_session_is_resumed_by_generation_after_generation(string version)
    {
        await using PairUnderTest pair = await StartedAsync(withKeys: true, "name");
        Assert.False(Connect(pair, version, resume: false));
        for (int flip = 0; flip < 3; flip++)
        {
            FlipRecord record = await pair.FlipAsync();
            Assert.Null(record.Lost);
            Assert.True(Connect(pair, version, resume: true), $"after flip {record.Id}");
        }
    }

    [Theory(Timeout = Limit)]
    [InlineData("tls1_2")]
    [InlineData("tls1_3")]
    public async Task With_keys_of_its_own_no_other_generation_resumes_it(string version)
    {
        await using PairUnderTest pair = await StartedAsync(withKeys: false, "name");
        Assert.False(Connect(pair, version, resume: false));
        Assert.True(Connect(pair, version, resume: true));
        await pair.FlipAsync();
        Assert.False(Connect(pair, version, resume: true));
    }

    [Theory(Timeout = Limit)]
    [InlineData("tls1_2", true)]
    [InlineData("tls1_3", true)]
    [InlineData("tls1_3", false)]
    public async Task Keys_set_at_run_time_are_carried_or_named(string version, bool carried)
    {
        await using PairUnderTest pair = await StartedAsync(withKeys: true, carried ? "carry" : "name");
        string socket = $"{pair.Files["run"]}/{PairUnderTest.Name}/g{(await pair.StatusAsync()).Active!.Number:00000}.sock";
        // The key in the middle of three encrypts: the first of these after the second.
        for (int i = 0; i < 2; i++)
            Assert.Contains("updated", pair.Nets.Server.Exec("sh", "-c", $"echo 'set ssl tls-key {pair.Files["ticket.keys"]} {Key()}' | socat - UNIX-CONNECT:{socket}"));
        Assert.False(Connect(pair, version, resume: false));
        string[] told = [$"TLS ticket keys {pair.Files["ticket.keys"]} were changed"];
        for (int flip = 0; flip < (carried ? 2 : 1); flip++)
        {
            FlipRecord record = await pair.FlipAsync();
            Assert.Equal(carried ? told : [], record.Carried ?? []);
            Assert.Equal(carried ? [] : told, record.Lost ?? []);
            Assert.Equal(carried, Connect(pair, version, resume: true));
        }
    }
}
