using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Handover;

/// <param name="Device">Whose it is.</param>
/// <param name="Setting">Under /proc/sys/net/ipv4/conf/DEVICE.</param>
/// <param name="Before">What stood there.</param>
/// <param name="Ours">What we wrote.</param>
public sealed record ChangedSetting(string Device, string Setting, int Before, int Ours)
{
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"net.ipv4.conf.{Device}.{Setting} = {Before}");
}

/// <summary>
/// Kernel settings of the device that clients come in by, for as long as a VIP is on lo: Documentation/networking/ip-sysctl.rst.
/// Only what is not so already is changed, and only what is still as we left it is changed back. They are read in /proc and written over
/// rtnetlink, as the shipped unit leaves /proc/sys read-only (ProtectKernelTunables=). rp_filter is content as it is: what the peer leads
/// here comes in by the device that the client's own packets come in by.
/// </summary>
public sealed class FrontSettings : IDisposable
{
    private const string ArpIgnore = "arp_ignore", ArpAnnounce = "arp_announce";

    private readonly RouteNetlink _route = new();

    public void Dispose() => _route.Dispose();

    /// <summary>What would have to be written, and what stands there; nothing is changed.</summary>
    public static ImmutableArray<ChangedSetting> Needed(string device)
    {
        var needed = ImmutableArray.CreateBuilder<ChangedSetting>();
        // 0 answers ARP for an address of any device: the VIP on lo would be told from here.
        if (Effective(device, ArpIgnore) == 0) needed.Add(new ChangedSetting(device, ArpIgnore, Read(device, ArpIgnore), 1));
        // Less than 2 asks with the VIP as the sender, which teaches neighbours that it is here.
        if (Effective(device, ArpAnnounce) < 2) needed.Add(new ChangedSetting(device, ArpAnnounce, Read(device, ArpAnnounce), 2));
        return needed.ToImmutable();
    }

    /// <exception cref="FlipException">It cannot be written.</exception>
    public void Write(ChangedSetting setting) => Put(setting, setting.Ours);

    /// <summary>Null: it is as it was before. Otherwise why it was left alone.</summary>
    public string? Restore(ChangedSetting setting)
    {
        if (!File.Exists(Path(setting.Device, setting.Setting))) return null; // the device is gone, and its settings with it
        int now = Read(setting.Device, setting.Setting);
        if (now == setting.Before) return null;
        if (now != setting.Ours) return $"{setting} before us, we made it {setting.Ours}, and somebody else {now} since: it is left alone";
        Put(setting, setting.Before);
        return null;
    }

    /// <summary>The larger of all's and the device's holds, for both.</summary>
    private static int Effective(string device, string setting) => Math.Max(Read("all", setting), Read(device, setting));

    private static string Path(string device, string setting) => $"/proc/sys/net/ipv4/conf/{device}/{setting}";

    private static int Read(string device, string setting)
    {
        string path = Path(device, setting);
        try
        {
            return int.Parse(File.ReadAllText(path), NumberStyles.Integer, CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            throw new FlipException($"cannot read {path}: {e.Message}; nothing was changed; is handover.device right?", e);
        }
    }

    private void Put(ChangedSetting setting, int value)
    {
        Link link = _route.Links().FirstOrDefault(l => l.Name == setting.Device)
            ?? throw new FlipException($"cannot set {setting.Setting} of {setting.Device}: there is no such device; nothing was changed; is handover.device right?");
        _route.SetIPv4Setting($"set net.ipv4.conf.{setting.Device}.{setting.Setting} to {value}", link.Index, setting.Setting == ArpIgnore ? IPv4Setting.ArpIgnore : IPv4Setting.ArpAnnounce, value);
    }
}
