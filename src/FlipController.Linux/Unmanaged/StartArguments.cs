using System.Collections.Immutable;

namespace FlipController.Linux.Unmanaged;

/// <summary>
/// HAProxy's command line (its management.txt, 3 "Starting HAProxy"; src/haproxy.c, init_args), read as far as starting it again
/// needs: without what tied it to an earlier run of itself or to the foreground.
/// </summary>
internal static class StartArguments
{
    /// <summary>Options whose value is the next word, which may look like an option itself.</summary>
    private static readonly ImmutableHashSet<string> s_withValue = ["-f", "-C", "-L", "-m", "-n", "-N", "-p", "-S", "-cc"];

    /// <summary>As a daemon of its own.</summary>
    public static ImmutableArray<string> Daemonised(ImmutableArray<string> arguments, bool masterWorker) =>
        [.. masterWorker ? ["-W", "-D"] : (string[])["-D"], .. Kept(arguments)];

    /// <summary>Only to look whether it would start.</summary>
    public static ImmutableArray<string> Check(ImmutableArray<string> arguments) => ["-c", .. Kept(arguments)];

    /// <summary>The foreground has the last word, wherever it stands.</summary>
    public static bool IsDaemon(ImmutableArray<string> arguments) =>
        Options(arguments).Contains("-D") && !Options(arguments).Any(word => word is "-d" or "-db");

    public static bool HasMaster(ImmutableArray<string> arguments) => Options(arguments).Any(word => word is "-W" or "-Ws");

    /// <summary>Without their values.</summary>
    private static IEnumerable<string> Options(ImmutableArray<string> arguments)
    {
        for (int i = 0; i < arguments.Length && arguments[i] != "--"; i++)
        {
            yield return arguments[i];
            if (s_withValue.Contains(arguments[i]) || arguments[i] == "-x") i++;
        }
    }

    private static IEnumerable<string> Kept(ImmutableArray<string> arguments)
    {
        for (int i = 0; i < arguments.Length; i++)
        {
            string word = arguments[i];
            switch (word)
            {
                case "--":
                    foreach (string rest in arguments[i..]) yield return rest;
                    yield break;
                case "-sf" or "-st":
                    while (i + 1 < arguments.Length && !arguments[i + 1].StartsWith('-')) i++;
                    break;
                case "-x":
                    i++;
                    break;
                // The ways to run: in the foreground (-d also debugs there), as a daemon, with a master, with systemd's notifications.
                case "-d" or "-db" or "-D" or "-W" or "-Ws":
                    break;
                default:
                    yield return word;
                    if (s_withValue.Contains(word) && i + 1 < arguments.Length) yield return arguments[++i];
                    break;
            }
        }
    }
}
