using System.Collections.Immutable;
using System.Globalization;
using FlipController.Linux.Haproxy;

namespace FlipController.Linux.Units;

/// <summary>What <c>systemctl show</c> tells of a unit as it is loaded, its drop-ins included: org.freedesktop.systemd1(5).</summary>
public sealed record UnitLook(string Name, ImmutableDictionary<string, string> Properties)
{
    /// <summary>What <see cref="Read"/> needs to know, for -p.</summary>
    public static string Asked { get; } = string.Join(',',
    [
        "LoadState", "LoadError", "ActiveState", "SubState", "Result", "ExecMainCode", "ExecMainStatus", "MainPID", "InvocationID", "FragmentPath",
        "DropInPaths", "NeedDaemonReload", "Type", "Restart", "RemainAfterExit", "EnvironmentFiles", "RuntimeMaxUSec", "WatchdogUSec", "Job",
    ]);

    public static UnitLook Read(string unit, string shown)
    {
        var properties = ImmutableDictionary.CreateBuilder<string, string>(StringComparer.Ordinal);
        // Of a list each item is a line of the same name.
        foreach (string line in shown.Split('\n'))
            if (line.Split('=', 2) is [var name, var value]) properties[name] = properties.TryGetValue(name, out string? before) ? $"{before}\n{value}" : value;
        return new UnitLook(unit, properties.ToImmutable());
    }

    private string this[string property] => Properties.GetValueOrDefault(property, "");

    /// <summary>loaded, not-found, masked, bad-setting or error.</summary>
    public string LoadState => this["LoadState"];

    /// <summary>active, activating, reloading, deactivating, inactive or failed.</summary>
    public string ActiveState => this["ActiveState"];

    public bool IsRunning => ActiveState is not ("inactive" or "failed");

    /// <summary>Something waits to be done to it.</summary>
    public bool HasJob => this["Job"] is not ("" or "0");

    /// <summary>0: none.</summary>
    public int MainPid => int.TryParse(this["MainPID"], NumberStyles.None, CultureInfo.InvariantCulture, out int pid) ? pid : 0;

    /// <summary>Of its latest start; empty: there was none.</summary>
    public string InvocationId => this["InvocationID"];

    /// <summary>The file it is read from.</summary>
    public string FragmentPath => this["FragmentPath"];

    /// <summary>The files were changed and systemd was not told.</summary>
    public bool IsOutdated => this["NeedDaemonReload"] == "yes";

    /// <summary>How the process ended: waitid(2) tells 1 for an exit, 2 and 3 for a signal.</summary>
    public string Ending => this["ExecMainCode"] switch
    {
        "1" => $"exit code {this["ExecMainStatus"]}",
        "2" or "3" => $"signal {this["ExecMainStatus"]}",
        _ => $"systemd says: {this["Result"]}",
    };

    /// <summary>Why a generation must not be started as this unit, each with what to do; none: it may.</summary>
    public ImmutableArray<string> Obstacles(GenerationPlace? place)
    {
        const string install = $"install config/systemd/{GenerationUnit.Template} as /etc/systemd/system/{GenerationUnit.Template} and say `systemctl daemon-reload`";
        switch (LoadState)
        {
            case "loaded":
                break;
            case "not-found":
                return [$"systemd knows no {GenerationUnit.Template}; {install}"];
            case "masked":
                return [$"{GenerationUnit.Template} is masked; say `systemctl unmask {GenerationUnit.Template}`"];
            default:
                return [$"systemd cannot load {Name} ({LoadState}: {this["LoadError"]}); `systemctl cat '{Name}'` shows it"];
        }
        var obstacles = ImmutableArray.CreateBuilder<string>();
        // Who answers for it already is of another time, with another configuration.
        if (IsRunning) obstacles.Add($"{Name} is {ActiveState} already (process {MainPid}), and nothing is known of it here; look at it, and say `systemctl stop '{Name}'`");
        if (Restart is not ("no" or "")) obstacles.Add(Setting("Restart", Restart, "no", "systemd would start again what the controller replaces"));
        if (this["Type"] is not ("exec" or "simple")) obstacles.Add(Setting("Type", this["Type"], "exec", "HAProxy runs in its foreground and tells systemd nothing"));
        if (this["RemainAfterExit"] == "yes") obstacles.Add(Setting("RemainAfterExit", "yes", "no", "a unit whose HAProxy has drained would stay for ever"));
        if (this["RuntimeMaxUSec"] is not ("infinity" or "")) obstacles.Add(Setting("RuntimeMaxSec", this["RuntimeMaxUSec"], "infinity", "systemd would end it with its connections"));
        if (this["WatchdogUSec"] is not ("0" or "infinity" or "")) obstacles.Add(Setting("WatchdogSec", this["WatchdogUSec"], "0", "systemd would end it with its connections"));
        if (place is not null && !this["EnvironmentFiles"].Split('\n').Any(f => f == place.UnitFile || f.StartsWith(place.UnitFile + " ", StringComparison.Ordinal)))
            obstacles.Add($"{Name} reads {(this["EnvironmentFiles"] is { Length: > 0 } read ? read.ReplaceLineEndings(", ") : "no EnvironmentFile")}, and not {place.UnitFile}; "
                + $"where `runtime` is not /run/flipcontroller a drop-in of {GenerationUnit.Template} must say so: EnvironmentFile= and EnvironmentFile={place.Runtime}/%I/{Path.GetFileName(place.UnitFile)}");
        return obstacles.ToImmutable();
    }

    private string Restart => this["Restart"];

    private string Setting(string name, string value, string wanted, string otherwise) =>
        $"{Name} has {name}={value} and must have {name}={wanted}: {otherwise} (`systemctl cat '{Name}'` shows what says so{(IsOutdated ? "; its files have changed since, `systemctl daemon-reload` reads them" : "")})";
}
