using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>What the configurations of the corpus refer to: certificates, lists, maps, pages and a script.</summary>
internal static class CorpusDirectory
{
    private static readonly Lazy<string> s_certificate = new(() =>
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using X509Certificate2 certificate = new CertificateRequest("CN=example.org", key, HashAlgorithmName.SHA256)
            .CreateSelfSigned(DateTimeOffset.UnixEpoch.AddYears(50), DateTimeOffset.UnixEpoch.AddYears(150));
        return certificate.ExportCertificatePem() + "\n" + key.ExportECPrivateKeyPem() + "\n";
    });

    public static void Provide(string directory)
    {
        foreach (string file in Directory.GetFiles(CorpusTests.Folder, "*", SearchOption.AllDirectories))
            if (!file.EndsWith(".cfg", StringComparison.Ordinal)) Write(directory, Path.GetRelativePath(CorpusTests.Folder, file), File.ReadAllText(file));
        Write(directory, "site.pem", s_certificate.Value);
        Write(directory, "certs/other.pem", s_certificate.Value);
        Write(directory, "list.crt", "site.pem [alpn h2,http/1.1] example.org\n");
        Write(directory, "tickets.key", string.Concat(Enumerable.Range(0, 3).Select(n => Convert.ToBase64String(new byte[48].Select(_ => (byte)n).ToArray()) + "\n")));
        Write(directory, "hello.lua", "core.register_service('hello', 'http', function(applet) applet:start_response() applet:send('hello') end)\n");
        Write(directory, "sub/names.lst", "example.org\nexample.com\n");
        Write(directory, "spoe.conf", "[check]\nspoe-agent agent\n messages m\n timeout hello 1s\n timeout idle 10s\n timeout processing 1s\n use-backend spoe\nspoe-message m\n args src\n event on-frontend-http-request\n");
        Write(directory, "server.state", "1\n");
    }

    private static void Write(string directory, string name, string text)
    {
        string path = Path.Combine(directory, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, text);
    }
}
