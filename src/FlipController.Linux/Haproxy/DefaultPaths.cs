using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// Relative names resolve as they did: <c>default-path config</c> and <c>parent</c> speak of the file's own directory, which
/// for the copy is another one, and hold for the files that follow, each with its own (src/cfgparse.c, cfg_apply_default_path).
/// </summary>
internal static class DefaultPaths
{
    /// <summary>Changes the lines that say it.</summary>
    /// <returns>What must stand at the head of files that another one's line holds for.</returns>
    public static IReadOnlyDictionary<int, string> Of(SlotCopy copy, ImmutableArray<ConfigurationSection> sections)
    {
        var heads = new Dictionary<int, string>();
        var lines = new Dictionary<int, List<PlacedLine>>();
        foreach (ConfigurationSection section in sections)
            if (section.Kind == "global")
                foreach (PlacedLine placed in section.Lines)
                    if (placed.Line[0] == "default-path")
                        (lines.TryGetValue(placed.File, out var said) ? said : lines[placed.File] = []).Add(placed);
        string mode = "current";
        for (int file = 0; file < copy.Files.Count; file++)
        {
            if (mode is "config" or "parent") heads[file] = $"global\n    default-path {OriginOf(copy.Files[file].Path, mode)}\n";
            foreach (PlacedLine placed in lines.GetValueOrDefault(file) ?? [])
            {
                mode = placed.Line[1];
                if (mode is "config" or "parent")
                    copy.ChangeOf(placed).ReplaceWithText(placed.Line.Words[1], OriginOf(copy.Files[file].Path, mode));
            }
        }
        return heads;
    }

    private static string OriginOf(string file, string mode)
    {
        string path = HaproxyEnvironment.Bytes(file);
        int slash = path.LastIndexOf('/');
        string directory = slash > 0 ? path[..slash] : "";
        if (mode == "parent") directory = directory == "" ? ".." : $"{directory}/..";
        return directory == "" ? "current" : $"origin {ConfigurationLine.Quote(directory)}";
    }
}
