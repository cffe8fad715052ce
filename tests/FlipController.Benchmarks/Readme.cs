namespace FlipController.Benchmarks;

internal static class Readme
{
    /// <summary>Puts a table between <c>&lt;!-- benchmark: NAME --&gt;</c> and <c>&lt;!-- end of benchmark: NAME --&gt;</c>; without a name, between those without.</summary>
    internal static void Write(string? name, string table)
    {
        string suffix = name is null ? "" : ": " + name, begin = $"<!-- benchmark{suffix} -->\n", end = $"<!-- end of benchmark{suffix} -->";
        string path = Path.Combine(Root(), "README.md"), text = File.ReadAllText(path);
        int from = text.IndexOf(begin, StringComparison.Ordinal), to = text.IndexOf(end, StringComparison.Ordinal);
        if (from < 0 || to < from) throw new InvalidOperationException($"{path} has no line {begin}");
        File.WriteAllText(path, text[..(from + begin.Length)] + table + text[to..]);
    }

    internal static string Root()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "FlipController.sln"))) directory = Path.GetDirectoryName(directory);
        return directory ?? throw new InvalidOperationException("the benchmarks do not run inside the repository");
    }
}
