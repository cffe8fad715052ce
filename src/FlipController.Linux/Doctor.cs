using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;
using FlipController.Linux.Units;

namespace FlipController.Linux;

/// <summary>
/// What a configuration needs of this host, looked at without changing anything. Each line that is not right says what to do.
/// A warning is something that will hurt one day; only the others stop a flip.
/// </summary>
public static partial class Doctor
{
    /// <param name="configuration">Null: the defaults, and no pair to look at.</param>
    public static async Task<CheckReport> LookAsync(Configuration? configuration, CancellationToken cancel)
    {
        Configuration looked = configuration ?? new Configuration();
        var lines = ImmutableArray.CreateBuilder<CheckLine>();
        lines.Add(Rights());
        lines.Add(Libnftables());
        lines.Add(Nat());
        lines.AddRange(Iptables(looked));
        lines.Add(Listener(looked));
        lines.AddRange(await SystemdAsync(looked, new Systemctl { Patience = TimeSpan.FromSeconds(5) }, cancel));
        lines.Add(Conntrack());
        foreach (HoldMethod method in looked.Pairs.Values.Select(p => p.Hold.Method).DefaultIfEmpty(HoldMethod.Auto).Distinct()) lines.Add(Holding(method));
        lines.AddRange(LeftHolds());
        if (configuration is null) lines.Add(await HaproxyAsync("haproxy", "haproxy", cancel));
        foreach (PairOptions pair in looked.Pairs.Values)
        {
            if (pair.Haproxy is { } haproxy) lines.Add(await HaproxyAsync($"pair {pair.Name}: haproxy", haproxy.Binary, cancel));
            if (pair.Command is { } command)
                lines.AddRange(new[] { command.Check, command.Start, command.Stop, command.Reload }
                    .Where(c => !c.IsEmpty).Select(c => c[0]).Distinct().Select(p => Command(pair.Name, p)));
            lines.AddRange(pair.Server.Config.Select(f => Readable($"pair {pair.Name}: configuration", f, warning: false)));
            lines.AddRange(pair.Server.EnvironmentFiles.Where(f => !f.StartsWith('-'))
                .Select(f => Readable($"pair {pair.Name}: environment", f, warning: false)));
            lines.AddRange(pair.Server.AlsoWatch.Select(f => Readable($"pair {pair.Name}: also_watch", f, warning: true)));
            foreach (string program in new[] { pair.Hooks.Switched, pair.Hooks.Drained, pair.Hooks.Failed, pair.Hooks.Notify }
                .Where(h => !h.IsEmpty).Select(h => h[0]).Distinct())
                lines.Add(Hook(pair.Name, program));
        }
        lines.AddRange(Keepalived(looked));
        lines.AddRange(Peer(looked));
        lines.AddRange(Handover(looked));
        lines.Add(Directory("state directory", looked.State));
        lines.Add(Directory("runtime directory", looked.Runtime));
        lines.Add(Directory("control socket's directory", Path.GetDirectoryName(looked.Control.Socket) ?? "/"));
        lines.Add(SocketLength(looked.Control.Socket));
        lines.Add(Group(looked.Control.Group));
        lines.AddRange(PrivatePorts(looked));
        lines.AddRange(await FrontPathsAsync(looked, cancel));
        lines.AddRange(await RulesOfOthersAsync(looked, cancel));
        lines.Add(Inotify(looked));
        lines.Add(Keepalived());
        return new CheckReport(lines.All(l => l.Ok || l.Warning), lines.ToImmutable());
    }

    private static CheckLine Rights()
    {
        string status = ReadOrEmpty("/proc/self/status");
        ulong effective = Convert.ToUInt64(Effective().Match(status) is { Success: true } match ? match.Groups[1].Value : "0", 16);
        // capability.h. HAProxys drop to users of their own: it takes CAP_KILL to stop them, CAP_SYS_PTRACE to see which sockets
        // are theirs, CAP_SYS_NICE to raise a standby to the active one's priority. CAP_NET_ADMIN changes rules and dumps conntrack.
        (int Bit, string Name)[] needed = [(5, "CAP_KILL"), (12, "CAP_NET_ADMIN"), (19, "CAP_SYS_PTRACE"), (23, "CAP_SYS_NICE")];
        string[] missing = [.. needed.Where(n => (effective & (1UL << n.Bit)) == 0).Select(n => n.Name)];
        return missing.Length == 0
            ? new CheckLine("rights", true,
                geteuid() == 0 ? "root" : $"uid {geteuid()} with {string.Join(", ", needed.Select(n => n.Name))}")
            : new CheckLine("rights", false, $"uid {geteuid()} without {string.Join(", ", missing)}",
                "run it as root (the systemd unit does); "
                + $"a container needs {string.Join(" ", missing.Select(m => $"--cap-add {m[4..]}"))}");
    }

    private static CheckLine Libnftables()
    {
        const string Library = "libnftables.so.1";
        if (!NativeLibrary.TryLoad(Library, out nint handle))
            return new CheckLine("libnftables", false, $"{Library} cannot be loaded",
                "install it: libnftables1 (Debian, Ubuntu), nftables (Fedora, Arch, SUSE)");
        NativeLibrary.Free(handle);
        return new CheckLine("libnftables", true, $"{Library} can be loaded");
    }

    /// <summary>
    /// Offers the kernel the very rules of a redirect, under a name of their own, in one transaction whose last command deletes
    /// them again: all of it is judged, nothing of it stays.
    /// </summary>
    private static CheckLine Nat()
    {
        try
        {
            string rules = NftRuleset.Base([new PairPorts("doctor", new PortBlock(21000, 1000), new PortBlock(22000, 1000))], [])
                + NftRuleset.AddGeneration("doctor", 1, 0x00000100, 0x00ffff00,
                    [new ServicePort(new Service(IPAddress.IPv6Any, 65000), 21000)]);
            using NftLibrary nft = NftLibrary.Open();
            string table = $"inet flipcontroller_doctor_{Environment.ProcessId}";
            nft.Run("have the redirect's rules checked",
                $"{rules.Replace(NftRuleset.Table, table, StringComparison.Ordinal)}delete table {table}\n");
            return new CheckLine("nf_tables nat", true, "the kernel takes the redirect's rules");
        }
        catch (FlipException e)
        {
            return new CheckLine("nf_tables nat", false, e.Message,
                "as root, modprobe nf_tables nft_chain_nat nft_ct nft_fib_inet nft_reject_inet; a container needs --cap-add NET_ADMIN");
        }
    }

    /// <summary>Each variant, judged by its own programs and the kernel; one that no pair has hurts nobody.</summary>
    private static IEnumerable<CheckLine> Iptables(Configuration configuration)
    {
        foreach (IptablesVariant variant in Enum.GetValues<IptablesVariant>())
        {
            string subject = $"redirect.method iptables ({variant.ToString().ToLowerInvariant()})", said;
            bool works = false, wanted = false;
            try
            {
                foreach (RedirectOptions redirect in configuration.Pairs.Values.Select(p => p.Redirect).Where(r => r.Method == RedirectMethod.Iptables).Distinct())
                {
                    using var redirects = new Redirects(configuration.Runtime);
                    wanted |= redirects.Of(redirect) is IptablesRedirect its && its.Variant == variant;
                }
            }
            catch (FlipException)
            {
                wanted = true; // none can be found: the line says why
            }
            try
            {
                using IptablesRedirect iptables = IptablesRedirect.Open(variant);
                bool asks = wanted || variant == IptablesVariant.Nft || Redirects.HasLegacyNat();
                if (asks) iptables.Try();
                (works, said) = (true, asks ? "its programs and the kernel take the redirect's rules" : "its programs are here; the kernel was not asked, which would load iptable_nat");
            }
            catch (FlipException e)
            {
                said = e.Message;
            }
            yield return works ? new CheckLine(subject, true, said)
                : wanted ? new CheckLine(subject, false, said, "install iptables, or set redirect.method: nftables, which needs only libnftables")
                : new CheckLine(subject, true, $"does not work here, and no pair is configured for it: {said}");
        }
        if (Redirects.HasLegacyNat() && configuration.Pairs.Values.Any(p => p.Redirect is { Method: RedirectMethod.Iptables, Iptables: not IptablesChoice.Legacy }))
            yield return new CheckLine("redirect.method iptables", false, "there are NAT rules of iptables-legacy beside those of nf_tables, and which are met first is not defined",
                "use one of the two: `iptables-legacy-save -t nat` shows whose they are", Warning: true);
    }

    private static CheckLine Listener(Configuration configuration)
    {
        const string subject = "redirect.method listener";
        string? said = null;
        try
        {
            ListenerRedirect.Try();
            // Another process's needs a right more, without which this host has more troubles than this one: the first line says so.
            if (ReadOrEmpty("/proc/sys/kernel/yama/ptrace_scope").Trim() == "3") said = "kernel.yama.ptrace_scope is 3, with which nobody may reach another process's listeners";
        }
        catch (FlipException e)
        {
            said = e.Message;
        }
        return said is null ? new CheckLine(subject, true, "the kernel lets one of two listeners on an address be named for NEW connections; the unit needs SystemCallFilter=pidfd_getfd for it")
            : configuration.Pairs.Values.Any(p => p.Redirect.Method == RedirectMethod.Listener)
                ? new CheckLine(subject, false, said, "run as root with CAP_SYS_PTRACE on Linux 5.6 or later, kernel.yama.ptrace_scope below 3; or set redirect.method: nftables")
                : new CheckLine(subject, true, $"does not work here, and no pair is configured for it: {said}");
    }

    private static IEnumerable<CheckLine> LeftHolds()
    {
        try
        {
            return HoldTraces.Find().Where(h => !h.Lives).Select(h => new CheckLine("hold", false,
                $"of {h.Owner}: its process is gone, and new connections may wait until the hold's time is over", "flipctl reset --holds", Warning: true)).ToList();
        }
        catch (FlipException)
        {
            return []; // without rights nothing of it can be seen, and other lines say that they are missing
        }
    }

    private static CheckLine Holding(HoldMethod method)
    {
        string name = method.ToString().ToLowerInvariant();
        if (method == HoldMethod.None) return new CheckLine($"hold.method {name}", true, "none: as configured"); // needs no rights to try
        const string Remedy = "load the modules (modprobe sch_plug ifb nft_fwd_netdev, or nft_queue), or set hold.method: none, which loses nothing either";
        try
        {
            (string works, string why) = HoldTrial.Run(name);
            return works == "none"
                ? new CheckLine($"hold.method {name}", false, $"none: {why}", Remedy, Warning: true)
                : new CheckLine($"hold.method {name}", true, $"{works}: {why}");
        }
        catch (FlipException e)
        {
            return new CheckLine($"hold.method {name}", false, e.Message, Remedy, Warning: method == HoldMethod.Auto);
        }
    }

    private static CheckLine Conntrack()
    {
        if (ConntrackFill.Read() is not { } fill)
            return new CheckLine("conntrack", false, "the kernel shows no connection tracking (yet)",
                "modprobe nf_conntrack", Warning: true);
        string found = string.Create(CultureInfo.InvariantCulture, $"{fill.Entries} of {fill.Limit} entries in use");
        if (ConntrackFill.Number("nf_conntrack_events") is null or 0)
            return new CheckLine("conntrack", false, $"{found}; it tells nobody what changes, so a drain's count is only as new as the last look",
                "sysctl -w net.netfilter.nf_conntrack_events=2", Warning: true);
        // At the top the kernel drops what is new ("nf_conntrack: table full"), flip or no flip.
        return fill.Share < ConntrackFill.High
            ? new CheckLine("conntrack", true, found)
            : new CheckLine("conntrack", false, found, $"sysctl -w net.netfilter.nf_conntrack_max={fill.Limit * 2}", Warning: true);
    }

    private static async Task<CheckLine> HaproxyAsync(string subject, string binary, CancellationToken cancel)
    {
        try
        {
            HaproxyVersion version = await HaproxyBinary.VersionAsync(binary, cancel);
            return version.IsAtLeast(2, 4)
                ? new CheckLine(subject, true, $"{binary} {version}")
                : new CheckLine(subject, false, $"{binary} {version}",
                    "use HAProxy 2.4 or newer; what the gate asks is not tried with older ones", Warning: true);
        }
        catch (CommandFailedException e)
        {
            return new CheckLine(subject, false, e.Message, "install haproxy, or name it in haproxy.binary");
        }
    }

    private static CheckLine Readable(string subject, string path, bool warning)
    {
        int error = System.IO.Directory.Exists(path) || File.Exists(path) ? Access(path, ReadOk) : Enoent;
        return error == 0
            ? new CheckLine(subject, true, $"{path} can be read")
            : new CheckLine(subject, false, $"{path}: {Marshal.GetPInvokeErrorMessage(error)}", "make the file, or name another", warning);
    }

    private static CheckLine Hook(string pair, string program) => Access(program, ExecuteOk) is var error && error == 0
        ? new CheckLine($"pair {pair}: hook", true, $"{program} can be run")
        : new CheckLine($"pair {pair}: hook", false, $"{program}: {Marshal.GetPInvokeErrorMessage(error)}",
            $"chmod +x {program}, or name another", Warning: true);

    private static CheckLine Command(string pair, string program)
    {
        string subject = $"pair {pair}: command";
        string path = ChildProcess.Plain.First(v => v.Name == "PATH").Value;
        string[] places = program.Contains('/') ? [program] : [.. path.Split(':').Select(d => $"{d}/{program}")];
        return places.FirstOrDefault(p => Access(p, ExecuteOk) == 0) is { } found
            ? new CheckLine(subject, true, $"{found} can be run")
            : new CheckLine(subject, false, $"{program} cannot be run{(program.Contains('/') ? "" : $": it is not in {path}")}", "install it, or name it by its path");
    }

    private static CheckLine Directory(string subject, string path)
    {
        if (System.IO.Directory.Exists(path))
            return Access(path, WriteOk) is var error && error == 0
                ? new CheckLine(subject, true, $"{path} can be written")
                : new CheckLine(subject, false, $"{path}: {Marshal.GetPInvokeErrorMessage(error)}",
                    "run it as root, or name another directory");
        // The daemon makes it; what matters is whether it could.
        string above = path;
        while (!System.IO.Directory.Exists(above)) above = Path.GetDirectoryName(above) ?? "/";
        return Access(above, WriteOk) == 0
            ? new CheckLine(subject, true, $"{path} is not there yet and can be made")
            : new CheckLine(subject, false, $"{path} is not there and cannot be made in {above}", "run it as root, or make it");
    }

    private static CheckLine SocketLength(string socket)
    {
        int bytes = Encoding.UTF8.GetByteCount(socket);
        return new CheckLine("control socket", bytes <= ConfigurationReader.SocketPathBytes,
            $"{socket} has {bytes} of at most {ConfigurationReader.SocketPathBytes} bytes",
            bytes <= ConfigurationReader.SocketPathBytes ? null : "name a shorter path");
    }

    private static CheckLine Group(string group) =>
        ReadOrEmpty("/etc/group").Split('\n').Any(l => l.StartsWith(group + ':', StringComparison.Ordinal))
            ? new CheckLine("control group", true, $"group {group} is there")
            : new CheckLine("control group", false, $"there is no group {group}: only root can use flipctl",
                $"groupadd --system {group}", Warning: true);

    private static IEnumerable<CheckLine> PrivatePorts(Configuration configuration)
    {
        if (EphemeralPorts.Read() is not { } ephemeral) yield break;
        PortBlocks blocks = PortBlocks.Of(configuration);
        foreach (PairOptions pair in configuration.Pairs.Values)
        {
            bool lives = !GenerationNote.Living(configuration.Runtime, pair.Name).IsEmpty;
            foreach (Slot slot in Enum.GetValues<Slot>())
            {
                PortBlock block = blocks.BlockOf(pair.Name, slot);
                string subject = $"pair {pair.Name}: private ports of {slot.Name()}";
                // An outgoing connection may sit on any port of the range just when a standby wants to listen there.
                yield return ephemeral.Meets(block)
                    ? new CheckLine(subject, false,
                        $"{block} meets net.ipv4.ip_local_port_range {ephemeral.Range}{(lives ? "" : ", and the daemon takes up no new pair with such ports")}",
                        $"{ephemeral.Reserving(block)}, or choose ports outside", Warning: lives)
                    : new CheckLine(subject, true, $"{block}, outside net.ipv4.ip_local_port_range or reserved");
            }
        }
    }

    private static CheckLine Inotify(Configuration configuration)
    {
        if (!int.TryParse(ReadOrEmpty("/proc/sys/fs/inotify/max_user_watches"), out int watches)
            || !int.TryParse(ReadOrEmpty("/proc/sys/fs/inotify/max_user_instances"), out int instances))
            return new CheckLine("inotify", false, "the kernel has none: changed files are not noticed", "use flipctl flip", Warning: true);
        // One instance and one directory for each file, at most.
        int needed = configuration.Pairs.Values.Where(p => p.Server.Watch).Sum(p => p.Server.Config.Length + p.Server.AlsoWatch.Length);
        string found = $"{watches} watches and {instances} instances per user, {needed} needed here";
        return needed < watches / 2 && needed < instances / 2
            ? new CheckLine("inotify", true, found)
            : new CheckLine("inotify", false, found,
                $"sysctl -w fs.inotify.max_user_instances={Math.Max(512, instances * 2)} "
                + $"fs.inotify.max_user_watches={Math.Max(65536, watches * 2)}", Warning: true);
    }

    private static CheckLine Keepalived()
    {
        bool runs = System.IO.Directory.EnumerateDirectories("/proc").Any(d =>
            char.IsAsciiDigit(Path.GetFileName(d)[0]) && ReadOrEmpty($"{d}/comm").Trim() == "keepalived");
        return new CheckLine("keepalived", true,
            runs ? "runs here; this version neither asks nor changes it" : "does not run here, and need not");
    }

    private static string ReadOrEmpty(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    // unistd.h
    private const int ExecuteOk = 1; // X_OK
    private const int WriteOk = 2; // W_OK
    private const int ReadOk = 4; // R_OK
    private const int Enoent = 2; // ENOENT, errno(3)

    /// <summary>0, or the errno: access(2) knows read-only mounts and capabilities, which mode bits do not tell.</summary>
    private static int Access(string path, int mode) => access(path, mode) == 0 ? 0 : Marshal.GetLastPInvokeError();

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int access(string path, int mode);

    [LibraryImport("libc")]
    private static partial uint geteuid();

    [GeneratedRegex(@"^CapEff:\s*([0-9a-f]+)", RegexOptions.Multiline)]
    private static partial Regex Effective();
}
