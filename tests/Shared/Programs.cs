namespace FlipController.Tests.Shared;

/// <summary>The programs under test, as the build published them for the test, or else put them beside it.</summary>
public static class Programs
{
    /// <summary>Where they are.</summary>
    public static string Folder { get; } = Path.Combine(AppContext.BaseDirectory, "published") is var published && Directory.Exists(published)
        ? published : AppContext.BaseDirectory.TrimEnd('/');

    public static string Load => Beside("flipload");

    public static string Daemon => Beside("flipcontrollerd");

    public static string Cli => Beside("flipctl");

    /// <summary>The path of an installed program, or null.</summary>
    public static string? Find(string name) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/sbin").Append("/sbin")
        .Where(d => d.Length > 0).Select(d => Path.Combine(d, name)).FirstOrDefault(File.Exists);

    private static string Beside(string name)
    {
        string path = Path.Combine(Folder, name);
        return File.Exists(path) ? path : throw new FileNotFoundException($"{name} is not there: does the test project refer to its project?", path);
    }
}
