using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace FlipController.Linux.Tests.Haproxy.Runtime;

internal static class TestCertificate
{
    /// <summary>A self-signed certificate with its key, as HAProxy's <c>crt</c> takes it.</summary>
    public static string Pem(string name)
    {
        using RSA key = RSA.Create(2048);
        var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        using X509Certificate2 certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
        return $"{certificate.ExportCertificatePem()}\n{key.ExportRSAPrivateKeyPem()}\n";
    }
}
