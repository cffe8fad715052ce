using System.Net;
using FlipController.Core;
using FlipController.Linux.Handover;

namespace FlipController.Linux;

public static partial class Doctor
{
    /// <summary>Whether packets could be led to the peer, as far as that can be seen from here.</summary>
    private static IEnumerable<CheckLine> Handover(Configuration configuration)
    {
        if (configuration is not { Handover: { } options, Peer: { } peer }) yield break;
        CheckLine way, vips;
        try
        {
            using var places = new VipPlaces();
            string device = options.Device.Length > 0 ? options.Device : places.DeviceTo(IPEndPoint.Parse(peer.Address).Address);
            PeerNode self = places.Self(device, options.Vips);
            IPAddress[] bare = [.. options.Vips.Where(v => (v.AddressFamily == System.Net.Sockets.AddressFamily.InterNetwork ? self.V4 : self.V6) is null)];
            way = bare.Length == 0 ? new CheckLine("handover.device", true, $"{device}: the peer is on the same link")
                : new CheckLine("handover.device", false, $"{device} has no address of its own of the family of {bare[0]}, to which the peer could lead packets", $"give {device} one");
            IPAddress[] held = [.. places.Held(options.Vips)];
            vips = new CheckLine("handover.vips", true, held.Length == 0 ? "none is on this node now" : $"{string.Join(", ", held.AsEnumerable())} on this node now");
        }
        catch (FlipException e)
        {
            way = new CheckLine("handover.device", false, e.Message, "see handover.device and peer.address");
            vips = new CheckLine("handover.vips", false, "not looked at", "", Warning: true);
        }
        yield return way;
        yield return vips;
        CheckLine table;
        try
        {
            using HandoverTable rules = HandoverTable.Open();
            table = rules.Led() is { } led ? new CheckLine("handover", true, $"rules of one are in the kernel, and have led {led} packets to the peer")
                : new CheckLine("handover", true, "no rule of one is in the kernel");
        }
        catch (FlipException e)
        {
            table = new CheckLine("handover", false, e.Message, "run it as root", Warning: true);
        }
        yield return table;
    }
}
