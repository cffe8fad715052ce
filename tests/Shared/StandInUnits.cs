namespace FlipController.Tests.Shared;

/// <summary>
/// A systemctl and a journalctl for instances of the shipped template unit, where no systemd runs; what they start is real. See the
/// program itself (stand-in-systemctl.pl) for what it imitates and what not.
/// </summary>
internal sealed class StandInUnits
{
    public const string Template = "flipcontroller-haproxy@.service";

    private readonly string _place;

    /// <param name="place">A directory that is not there yet.</param>
    /// <param name="runtime">The controller's; where it is not the one the template names, a drop-in says so as the README shows it.</param>
    public StandInUnits(string place, string runtime)
    {
        Require.Program("perl");
        _place = place;
        Directory.CreateDirectory(Units);
        foreach (string name in new[] { "systemctl", "journalctl" })
        {
            string program = Path.Combine(place, name);
            File.Copy(Path.Combine(Repository.Root, "tests/Shared/stand-in-systemctl.pl"), program);
            File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        Install();
        if (runtime != "/run/flipcontroller") DropIn("runtime", $"EnvironmentFile=\nEnvironmentFile={runtime}/%I/unit.env");
    }

    private string Units => Path.Combine(_place, "units");

    public string Systemctl => Path.Combine(_place, "systemctl");

    public string Journalctl => Path.Combine(_place, "journalctl");

    /// <summary>For a daemon's environment: it finds these programs, then the others.</summary>
    public string SearchPath => $"{_place}:{Environment.GetEnvironmentVariable("PATH")}";

    /// <summary>As the README says it is installed.</summary>
    public void Install()
    {
        Remove();
        File.Copy(Path.Combine(Repository.Root, "config/systemd", Template), Path.Combine(Units, Template));
    }

    public void Remove() => File.Delete(Path.Combine(Units, Template));

    public void Mask()
    {
        Remove();
        File.CreateSymbolicLink(Path.Combine(Units, Template), "/dev/null");
    }

    public void DropIn(string name, string service)
    {
        Directory.CreateDirectory(Path.Combine(Units, Template + ".d"));
        File.WriteAllText(Path.Combine(Units, Template + ".d", name + ".conf"), $"[Service]\n{service}\n");
    }

    public void RemoveDropIn(string name) => File.Delete(Path.Combine(Units, Template + ".d", name + ".conf"));

    /// <summary>A verb does not return.</summary>
    public void Hang(string verb) => File.WriteAllText(Path.Combine(_place, "hangs"), verb + "\n");

    /// <summary>Nobody answers.</summary>
    public void Gone(string said) => File.WriteAllText(Path.Combine(_place, "gone"), said);

    public void Answer()
    {
        File.Delete(Path.Combine(_place, "gone"));
        File.Delete(Path.Combine(_place, "hangs"));
    }

    public string[] Asked => File.ReadAllLines(Path.Combine(_place, "log"));

    /// <summary>By unit: active, failed and so on, of every unit that was ever started.</summary>
    public Dictionary<string, string> States => Directory.Exists(Path.Combine(_place, "state"))
        ? Directory.EnumerateDirectories(Path.Combine(_place, "state")).ToDictionary(d => Path.GetFileName(d)!, d => File.ReadAllText(Path.Combine(d, "active")))
        : [];

    public int MainOf(string unit) => int.Parse(File.ReadAllText(Path.Combine(_place, "state", unit, "main")));

    public string JournalOf(string unit) => File.ReadAllText(Path.Combine(_place, "journal", File.ReadAllText(Path.Combine(_place, "state", unit, "invocation"))));
}
