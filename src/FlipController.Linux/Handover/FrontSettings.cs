using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Linux.Handover;

/// <param name="Path">Under /proc/sys.</param>
/// <param name="Before">What stood there.</param>
/// <param name="Ours">What we wrote.</param>
public sealed record ChangedSetting(string Path, string Before, string Ours);

/// <summary>
/// Kernel settings of the devices that clients come in by, for as long as a VIP is on lo: Documentation/networking/ip-sysctl.rst.
/// Only what is not so already is changed, and only what is still as we left it is changed back.
/// </summary>
public static class FrontSettings
{
    private const string Root = "/proc/sys/net/ipv4/conf";

    /// <summary>What would have to be written, and what stands there; nothing is changed.</summary>
    /// <param name="device">Where clients come in; what the peer leads here comes by the same, so rp_filter is content where it was before.</param>
    public static ImmutableArray<ChangedSetting> Needed(string device)
    {
        var needed = ImmutableArray.CreateBuilder<ChangedSetting>();
        // The larger of all's and the device's holds, for both.
        int Effective(string setting) => Math.Max(Read($"{Root}/all/{setting}"), Read($"{Root}/{device}/{setting}"));
        void Want(string setting, int value) => needed.Add(new ChangedSetting($"{Root}/{device}/{setting}",
            Read($"{Root}/{device}/{setting}").ToString(CultureInfo.InvariantCulture), value.ToString(CultureInfo.InvariantCulture)));
        // 0 answers ARP for an address of any device: the VIP on lo would be told from here.
        if (Effective("arp_ignore") == 0) Want("arp_ignore", 1);
        // Less than 2 asks with the VIP as the sender, which teaches neighbours that it is here.
        if (Effective("arp_announce") < 2) Want("arp_announce", 2);
        return needed.ToImmutable();
    }

    /// <exception cref="FlipException">It cannot be written.</exception>
    public static void Write(ChangedSetting setting) => Put(setting.Path, setting.Ours);

    /// <summary>Null: it is as it was before. Otherwise why it was left alone.</summary>
    public static string? Restore(ChangedSetting setting)
    {
        if (!File.Exists(setting.Path)) return null; // the device is gone, and its settings with it
        string now = File.ReadAllText(setting.Path).Trim();
        if (now == setting.Before) return null;
        if (now != setting.Ours) return $"{setting.Path} was {setting.Before}, we made it {setting.Ours}, and somebody else {now} since: it is left alone";
        Put(setting.Path, setting.Before);
        return null;
    }

    private static int Read(string path)
    {
        try
        {
            return int.Parse(File.ReadAllText(path), NumberStyles.Integer, CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            throw new FlipException($"cannot read {path}: {e.Message}; nothing was changed; is handover.device right?", e);
        }
    }

    private static void Put(string path, string value)
    {
        try
        {
            File.WriteAllText(path, value);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot write {value} to {path}: {e.Message}; it is as it was; is /proc/sys writable for the daemon (ProtectKernelTunables=no)?", e);
        }
    }
}
