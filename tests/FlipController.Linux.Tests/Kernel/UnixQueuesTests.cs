using System.Net.Sockets;
using FlipController.Linux.Kernel;
using FlipController.Linux.Tests.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

public sealed class UnixQueuesTests
{
    [Fact(Timeout = 30000)]
    public async Task What_nobody_has_accepted_is_counted_for_the_process_that_listens() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("u");
        using TemporaryDirectory files = new();
        network.Run(() =>
        {
            string path = Path.Combine(files.Path, "s");
            List<Socket> sockets = [];
            Socket New()
            {
                sockets.Add(new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified));
                return sockets[^1];
            }

            try
            {
                Socket listener = New(), hidden = New();
                listener.Bind(new UnixDomainSocketEndPoint(path));
                listener.Listen();
                hidden.Bind(new UnixDomainSocketEndPoint("\0" + files.Path));
                hidden.Listen();
                Assert.Equal(0u, UnixQueues.Unaccepted(Environment.ProcessId));
                for (int i = 0; i < 3; i++) New().Connect(new UnixDomainSocketEndPoint(path));
                New().Connect(new UnixDomainSocketEndPoint("\0" + files.Path));
                Assert.Equal(4u, UnixQueues.Unaccepted(Environment.ProcessId));
                sockets.Add(listener.Accept());
                Assert.Equal(3u, UnixQueues.Unaccepted(Environment.ProcessId));
                Assert.Equal(0u, UnixQueues.Unaccepted(1));
            }
            finally
            {
                foreach (Socket socket in sockets) socket.Dispose();
            }
            return 0;
        });
    });
}
