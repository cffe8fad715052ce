using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>The programs as users have them, compiled ahead, in tests/results/published: the emulated machine sees them there and could not build them.</summary>
internal static class Published
{
    private static string Root => Path.Combine(Readme.Root(), "tests/results/published");

    /// <summary>flipctl, newly published unless this machine is slow.</summary>
    public static async Task<string> CliAsync() => Machine.IsEmulated ? Path.Combine(Root, "flipctl", "flipctl") : await PublishAsync("FlipController.Cli", "flipctl");

    /// <returns>Where flipcontrollerd and flipctl are, newly published.</returns>
    public static async Task<string> BothAsync()
    {
        string directory = Path.Combine(Root, "both");
        foreach (var (project, program) in ((string, string)[])[("FlipController.Daemon", "flipcontrollerd"), ("FlipController.Cli", "flipctl")])
            await PublishAsync(project, program, directory);
        return directory;
    }

    private static async Task<string> PublishAsync(string project, string program, string? to = null)
    {
        Console.Error.WriteLine($"publishing {program}");
        string directory = to ?? Path.Combine(Root, program);
        using var publish = new NetnsProcess("dotnet", ["publish", Path.Combine(Readme.Root(), "src", project), "-c", "Release", "-o", directory]);
        if (await publish.Exit(TimeSpan.FromMinutes(10)) != 0) throw new InvalidOperationException($"`{publish.CommandLine}` failed: {publish.Output}");
        return Path.Combine(directory, program);
    }
}
