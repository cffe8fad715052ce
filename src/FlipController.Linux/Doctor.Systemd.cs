using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Units;

namespace FlipController.Linux;

public static partial class Doctor
{
    /// <summary>Whether systemd can run generations here: it answers, it knows the template, and the template is what is needed.</summary>
    public static async Task<IEnumerable<CheckLine>> SystemdAsync(Configuration configuration, Systemctl systemd, CancellationToken cancel)
    {
        const string subject = "haproxy.driver systemd";
        string[] pairs = [.. configuration.Pairs.Values.Where(p => p.Haproxy?.Driver == DriverChoice.Systemd).Select(p => p.Name)];
        // A generation that there never is: the template is the same for all of them.
        var unit = new GenerationUnit(new GenerationPlace(configuration.Runtime, pairs.FirstOrDefault("doctor"), 0), systemd);
        UnitLook look;
        try
        {
            look = await systemd.ShowAsync(unit.Name, cancel);
        }
        catch (CommandFailedException e)
        {
            return [Not(e.Message, "set haproxy.driver: process where no systemd runs (as in a container)")];
        }
        if (look.Obstacles(unit.Place) is { IsEmpty: false } obstacles) return obstacles.Select(o => Not(o, "no flip of such a pair is made until then"));
        List<CheckLine> lines = [new CheckLine(subject, true, $"systemd has {GenerationUnit.Template} from {look.FragmentPath}")];
        if (look.IsOutdated)
            lines.Add(new CheckLine(subject, false, $"{look.FragmentPath} or a drop-in of it was changed, and systemd has not read it again", "systemctl daemon-reload", Warning: true));
        if (ReadOrEmpty(look.FragmentPath) is { Length: > 0 } installed && installed.Trim() != GenerationUnit.Shipped().Trim())
            lines.Add(new CheckLine(subject, false, $"{look.FragmentPath} is another one than this version of FlipController has",
                $"install config/systemd/{GenerationUnit.Template} again, and leave what is your own to a drop-in", Warning: true));
        return lines;

        CheckLine Not(string why, string remedy) => pairs.Length > 0
            ? new CheckLine(subject, false, why, remedy)
            : new CheckLine(subject, true, $"does not work here, and no pair is configured for it: {why}");
    }
}
