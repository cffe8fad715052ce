using System.Globalization;
using System.Text;

namespace FlipController.Benchmarks;

/// <summary>The tables and the picture of what was measured before, with queue natively and with plug in an emulated machine.</summary>
internal static class HoldReport
{
    private static readonly string[] s_methods = ["queue", "plug"];

    private static string Picture => Path.Combine(Readme.Root(), "tests/FlipController.Benchmarks/results/hold.svg");

    public static int Write(bool writeReadme)
    {
        List<HoldRun> runs = [.. Found(HoldBenchmark.Output).Select(HoldRun.FromJson)];
        List<WindowRun> windows = [.. Found(WindowBenchmark.Output).Select(WindowRun.FromJson)];
        if (runs.Count == 0 || windows.Count == 0)
        {
            Console.Error.WriteLine("nothing to report: `hold` and `window` put what they measured into tests/results");
            return 1;
        }
        var text = new StringBuilder();
        text.Append("One HAProxy, restarted every 100 ms while clients in another namespace connect, ask and are answered in a closed loop, as with `ab`;\n"
            + "latency is connection and response, of those that succeeded. Numbers may be compared within one table only.\n\n"
            + "![Latency percentiles of each way to restart](tests/FlipController.Benchmarks/results/hold.svg)\n\n");
        foreach (HoldRun run in runs) text.Append(HoldTable.Of(run)).Append('\n');
        text.Append("How long new connections wait for a flip (close, switch, open), each way in turn, while clients connect:\n\n");
        foreach (WindowRun run in windows) text.Append(HoldTable.Of(run)).Append('\n');
        string table = text.ToString().TrimEnd('\n') + "\n";
        Console.WriteLine(table);
        Directory.CreateDirectory(Path.GetDirectoryName(Picture)!);
        File.WriteAllText(Picture, HoldSvg.Document(runs));
        if (writeReadme) Readme.Write("hold", table);
        return 0;
    }

    private static IEnumerable<string> Found(Func<string, string> path) => s_methods.Select(path).Where(File.Exists).Select(File.ReadAllText);
}
