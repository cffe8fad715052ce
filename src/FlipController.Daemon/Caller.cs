using System.Globalization;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;

namespace FlipController.Daemon;

/// <summary>Who is at the other end of the control socket: SO_PEERCRED of unix(7), as it was when it connected.</summary>
/// <param name="Pid">0: it is in another pid namespace.</param>
internal sealed record Caller(int Pid, uint Uid)
{
    private const int LongestShown = 300;

    /// <summary>Null: not over a unix socket.</summary>
    public static Caller? Of(HttpContext context)
    {
        // struct ucred { pid_t pid; uid_t uid; gid_t gid; }
        const int solSocket = 1, soPeerCred = 17;
        byte[] credentials = new byte[12];
        Socket? socket = context.Features.Get<IConnectionSocketFeature>()?.Socket;
        return socket is { AddressFamily: AddressFamily.Unix } && socket.GetRawSocketOption(solSocket, soPeerCred, credentials) == credentials.Length
            ? new Caller(BitConverter.ToInt32(credentials), BitConverter.ToUInt32(credentials, 4))
            : null;
    }

    /// <summary><c>alice (uid 1000), process 4711 (flipctl)</c>; what has ended meanwhile has no name any more.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{(UserName() is { } user ? $"{Shown(user)} (uid {Uid})" : $"uid {Uid}")}, process {Pid}{(Command() is { } command ? $" ({Shown(command)})" : "")}");

    /// <summary>What somebody else wrote, fit for one line of a log.</summary>
    public static string Shown(string text) =>
        string.Concat(text.Take(LongestShown).Select(c => char.IsControl(c) ? '?' : c)) + (text.Length > LongestShown ? "…" : "");

    /// <summary>From passwd(5).</summary>
    private string? UserName()
    {
        string uid = Uid.ToString(CultureInfo.InvariantCulture);
        return Read(() => File.ReadLines("/etc/passwd").Select(l => l.Split(':')).FirstOrDefault(f => f.Length > 2 && f[2] == uid)?[0]);
    }

    private string? Command() => Read(() => File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{Pid}/comm")).TrimEnd('\n'));

    private static string? Read(Func<string?> read)
    {
        try
        {
            return read();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
