namespace FlipController.Tests.Shared;

/// <summary>The programs under test, as the build put them beside the test.</summary>
public static class Programs
{
    public static string Load => Beside("flipload");

    public static string Daemon => Beside("flipcontrollerd");

    public static string Cli => Beside("flipctl");

    /// <summary>The path of an installed program, or null.</summary>
    public static string? Find(string name) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/sbin").Append("/sbin")
        .Where(d => d.Length > 0).Select(d => Path.Combine(d, name)).FirstOrDefault(File.Exists);

    private static string Beside(string name)
    {
        var path = Path.Combine(AppContext.BaseDirectory, name);
        return File.Exists(path) ? path : throw new FileNotFoundException($"{name} is not beside the test: does the test project refer to its project?", path);
    }
}
