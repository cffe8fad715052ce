using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>Which of the two implementations behind the name iptables: rules in nf_tables, or in x_tables.</summary>
public enum IptablesVariant { Nft, Legacy }

/// <summary>The programs of one address family, by their full names.</summary>
internal sealed record IptablesFamily(bool IsV6, string Restore, string Save)
{
    public override string ToString() => IsV6 ? "IPv6" : "IPv4";
}

/// <summary>The programs of one variant: iptables-restore(8), iptables-save(8), xtables-nft(8), xtables-legacy(8).</summary>
/// <param name="V6">Null: this host has no IPv6.</param>
internal sealed record IptablesPrograms(IptablesVariant Variant, IptablesFamily V4, IptablesFamily? V6)
{
    private const string Install = "install the package iptables, or set redirect.method: nftables";

    internal IEnumerable<IptablesFamily> Families => V6 is null ? [V4] : [V4, V6];

    /// <param name="wanted">Null: the one that the program `iptables` of this host is.</param>
    /// <exception cref="FlipException">It is not there; with what to do.</exception>
    internal static IptablesPrograms Find(IptablesVariant? wanted)
    {
        IptablesVariant variant = wanted ?? DefaultVariant();
        string name = variant == IptablesVariant.Nft ? "nft" : "legacy";
        IptablesFamily Family(bool v6)
        {
            string program = v6 ? "ip6tables" : "iptables";
            string? restore = PathOf($"{program}-{name}-restore"), save = PathOf($"{program}-{name}-save");
            // Where there is only one variant its programs have the plain names.
            if ((restore is null || save is null) && PathOf(program) is { } plain && VariantOf(plain) == variant)
                (restore, save) = (PathOf($"{program}-restore"), PathOf($"{program}-save"));
            return restore is not null && save is not null
                ? new IptablesFamily(v6, restore, save)
                : throw new FlipException($"cannot redirect by iptables: {program}-{name}-restore and -save are not in PATH; {Install}");
        }
        return new IptablesPrograms(variant, Family(v6: false), File.Exists("/proc/net/if_inet6") ? Family(v6: true) : null);
    }

    /// <exception cref="FlipException">There is no iptables.</exception>
    private static IptablesVariant DefaultVariant() => PathOf("iptables") is { } program
        ? VariantOf(program)
        : throw new FlipException($"cannot redirect by iptables: there is no program iptables in PATH; {Install}");

    /// <summary>"iptables v1.8.9 (nf_tables)"; before 1.8 there was only legacy, and nothing in parentheses.</summary>
    private static IptablesVariant VariantOf(string program)
    {
        using IptablesRun run = IptablesRun.Start([program, "-V"]);
        _ = run.End();
        return run.Output.Contains("(nf_tables)", StringComparison.Ordinal) ? IptablesVariant.Nft : IptablesVariant.Legacy;
    }

    private static string? PathOf(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Concat(["/usr/sbin", "/sbin"])
            .Where(d => d.StartsWith('/')).Select(d => Path.Combine(d, program)).FirstOrDefault(File.Exists);
}
