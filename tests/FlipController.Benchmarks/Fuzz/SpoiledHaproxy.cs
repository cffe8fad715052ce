using System.Net.Sockets;
using FlipController.Tests.Shared;

namespace FlipController.Fuzz;

/// <summary>
/// Answers who connects with given bytes, whatever is asked, and then says nothing more; 0x1e in them parts one connection's from the
/// next one's.
/// </summary>
internal sealed class SpoiledHaproxy : IDisposable
{
    private readonly TempDir _directory = new();
    private readonly Queue<byte[]> _answers = new();
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    public SpoiledHaproxy()
    {
        _listener.Bind(new UnixDomainSocketEndPoint(Path));
        _listener.Listen(16);
        new Thread(Serve) { IsBackground = true }.Start();
    }

    public string Path => _directory["admin.sock"];

    public void Say(byte[] bytes)
    {
        lock (_answers)
        {
            _answers.Clear();
            foreach (Range piece in bytes.AsSpan().Split((byte)0x1e)) _answers.Enqueue(bytes[piece]);
        }
    }

    private void Serve()
    {
        byte[] heard = new byte[65536];
        while (true)
        {
            try
            {
                using Socket client = _listener.Accept();
                byte[]? answer;
                lock (_answers) _ = _answers.TryDequeue(out answer);
                answer ??= [];
                // In two pieces: who reads must not take one for the whole.
                client.Send(answer.AsSpan(0, answer.Length / 2));
                client.Send(answer.AsSpan(answer.Length / 2));
                client.Shutdown(SocketShutdown.Send);
                while (client.Receive(heard) > 0) { }
            }
            catch (SocketException) when (_listener.SafeHandle.IsClosed)
            {
                return;
            }
            catch (SocketException)
            {
                // It went away in the middle.
            }
            catch (ObjectDisposedException)
            {
                return;
            }
        }
    }

    public void Dispose()
    {
        _listener.Dispose();
        _directory.Dispose();
    }
}
