using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <param name="Handshakes">Wait for the client's last ACK; 0 when they were not asked for.</param>
/// <param name="Waiting">Are established, and wait for the program to accept them.</param>
public readonly record struct UnacceptedConnections(int Handshakes, int Waiting)
{
    public bool Any => Handshakes + Waiting > 0;
}

public sealed partial class SockDiag
{
    /// <summary>What a listener's end would reset: the handshakes that belong to it, and its accept queue.</summary>
    /// <param name="handshakes">
    /// False: only accept queues. Listeners are in a table of their own; for a handshake the kernel looks at every connection of the host.
    /// </param>
    public UnacceptedConnections Unaccepted(ImmutableArray<int> localPorts, bool handshakes = true)
    {
        TcpStates states = handshakes ? TcpStates.Listen | TcpStates.SynReceived : TcpStates.Listen;
        PortBlock block = new(localPorts.Min(), localPorts.Max() - localPorts.Min() + 1);
        int half = 0, full = 0;
        foreach (byte family in (ReadOnlySpan<byte>)[Inet, Inet6])
        {
            int[] counts = Dump(family, states, block, () => new int[2], (found, _, payload) =>
            {
                if (payload.Length < Marshal.SizeOf<DiagMessage>() || !localPorts.Contains(BinaryPrimitives.ReadUInt16BigEndian(payload[4..]))) return;
                DiagMessage message = MemoryMarshal.Read<DiagMessage>(payload);
                if ((TcpStates)(1u << message.State) == TcpStates.Listen) found[1] += (int)message.ReceiveQueue;
                else found[0]++;
            });
            half += counts[0];
            full += counts[1];
        }
        return new UnacceptedConnections(half, full);
    }
}
