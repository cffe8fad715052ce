using System.Collections.Immutable;
using System.CommandLine;
using FlipController.Linux.Hold;

namespace FlipController.Cli;

internal static class PlugVerb
{
    private static readonly string[] Actions = ["attach", "buffer", "release", "release-one", "limit", "detach", "show"];

    public static Verb Create()
    {
        Argument<string> action = new Argument<string>("ACTION")
        {
            Description = "attach: put an open plug there; buffer: packets wait from now on; release: all go on, and nothing waits any more; "
                + "release-one: what waited before the last buffer goes on; limit: how much may wait; detach: release, and remove; show: how much waits",
        }.AcceptOnlyFromAmong(Actions);
        var device = new Option<string>("--dev") { Description = "The network device", HelpName = "D", Required = true };
        device.CompletionSources.Add(_ => Devices());
        var limit = new Option<uint?>("--limit")
        {
            Description = $"Bytes that may wait; what comes then is dropped. For attach ({PlugOnDevice.DefaultLimitBytes}) and limit", HelpName = "BYTES",
        };
        var parent = new Option<string?>("--parent") { Description = "The class it stands below; by default it is the device's root", HelpName = "CLASS" };
        parent.Validators.Add(result =>
        {
            if (result.Tokens is [var token] && !PlugOnDevice.IsClass(token.Value))
                result.AddError($"--parent: \"{token.Value}\" is no class, which is two hexadecimal numbers: 40:3");
        });
        var root = new Option<bool>("--root") { Description = "At the device's root, which is the default" };
        var replace = new Option<bool>("--replace") { Description = "attach: also where somebody's own qdisc stands, which is removed with all below it" };
        var verb = new Verb("plug",
            "Drives the kernel's plug qdisc on one device, at once and without the daemon, for reproducing bugs; the kernel needs sch_plug. Attaching and detaching at a "
            + "root loses what the device sends in that instant. A plug that buffers has no end of its own: nothing but release opens it.",
            [
                "sudo flipctl plug attach --dev veth0 --limit 4000000", "sudo flipctl plug buffer --dev veth0 && sleep 0.1; sudo flipctl plug release --dev veth0",
                "sudo flipctl plug attach --dev lo --parent 40:3", "flipctl plug show --dev veth0 --json", "sudo flipctl plug detach --dev veth0",
            ],
            (call, _) => Task.FromResult(Run(call, call.Value(action)!, call.Value(device)!, call.Value(parent), call.Value(limit), call.Value(replace))))
            { action, device, limit, parent, root, replace };
        verb.Validators.Add(result =>
        {
            if (result.Children.Any(c => c.Errors.Any())) return;
            string? word = result.GetValue(action);
            if (word == "limit" && result.GetResult(limit) is null) result.AddError("--limit BYTES is missing");
            if (word is not ("limit" or "attach") && result.GetResult(limit) is not null) result.AddError($"--limit means nothing to {word}");
            if (word != "attach" && result.GetValue(replace)) result.AddError($"--replace means nothing to {word}");
            if (result.GetValue(root) && result.GetResult(parent) is not null) result.AddError("--root and --parent name two places");
        });
        return verb;
    }

    private static ExitCode Run(Call call, string action, string device, string? parent, uint? limit, bool replace)
    {
        using PlugOnDevice plug = PlugOnDevice.Open(device, parent);
        if (action == "show") return Show(call, device, plug.States);
        if (action == "attach")
        {
            if (plug.Occupant is { } occupant && !replace)
                throw new VerbFailure(ExitCode.Refused, $"plug attach: {occupant} stands {plug.Place}; nothing was changed; --replace removes it, and all below it");
            plug.Attach(limit ?? PlugOnDevice.DefaultLimitBytes);
        }
        else if (plug.Here is null)
        {
            throw new VerbFailure(ExitCode.Refused, $"plug {action}: there is no plug {plug.Place}{(plug.Occupant is { } other ? $", but {other}" : "")}; "
                + "nothing was changed" + (action == "detach" ? "" : $"; `flipctl plug attach --dev {device}{(parent is null ? "" : $" --parent {parent}")}` puts one there"));
        }
        PlugState? last = plug.Here;
        switch (action)
        {
            case "buffer": plug.Buffer(); break;
            case "release": plug.Release(); break;
            case "release-one": plug.ReleaseOne(); break;
            case "limit": plug.Limit(limit!.Value); break;
            case "detach": plug.Detach(); break;
        }
        PlugState? now = action == "detach" ? last : plug.Here;
        if (now is not null && call.Terminal.Printed(now)) return ExitCode.Done;
        call.Terminal.Line(action switch
        {
            "attach" => $"plug {now?.Handle} is attached {plug.Place}, open",
            "buffer" => $"packets wait {plug.Place}, until `flipctl plug release --dev {device}{(parent is null ? "" : $" --parent {parent}")}`",
            "release" => $"open {plug.Place}; {Waiting(last)} had waited",
            "release-one" => $"one epoch was let go {plug.Place}; {Waiting(now)} wait",
            "limit" => $"at most {limit} bytes wait {plug.Place}",
            _ => $"no plug {plug.Place} any more; {Waiting(last)} had waited and went on",
        });
        return ExitCode.Done;
    }

    private static ExitCode Show(Call call, string device, ImmutableArray<PlugState> states)
    {
        if (call.Terminal.Printed(states)) return ExitCode.Done;
        if (states.Length == 0) call.Terminal.Line($"{device} has no plug");
        foreach (PlugState state in states)
            call.Terminal.Line($"plug {state.Handle} of {state.Device}, {(state.Place == "root" ? "root" : $"below {state.Place}")}: "
                + $"{Waiting(state)} ({state.Bytes} bytes) wait, {state.Dropped} dropped; whether it is open the kernel does not tell");
        return ExitCode.Done;
    }

    private static string Waiting(PlugState? state) => state?.Packets == 1 ? "1 packet" : $"{state?.Packets ?? 0} packets";

    /// <summary>For a shell's Tab. /proc/net/dev: two lines of headings, then a device and a colon in each.</summary>
    internal static IEnumerable<string> Devices()
    {
        try
        {
            return [.. File.ReadLines("/proc/net/dev").Skip(2).Select(line => line[..line.IndexOf(':', StringComparison.Ordinal)].Trim())];
        }
        catch (IOException)
        {
            return [];
        }
    }
}
