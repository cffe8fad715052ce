using System.ComponentModel;
using FlipController.Core;
using Medallion.Shell;

namespace FlipController.Linux;

/// <summary>What FlipController leaves in the kernel, for when nobody is to take care of it any more.</summary>
public static class KernelTraces
{
    public const string Table = "inet flipcontroller";

    /// <summary>Removes them, tolerating their absence; each line is one thing removed.</summary>
    public static async Task<IReadOnlyList<string>> RemoveAsync(CancellationToken cancel)
    {
        (int listed, string ruleset, string error) = await NftAsync(cancel, "list", "table", "inet", "flipcontroller");
        if (listed != 0)
        {
            // nft(8) says it so for a table that is not there, and as root for nothing else.
            if (error.Contains("No such file or directory", StringComparison.Ordinal)) return [];
            throw new FlipException($"cannot look for table {Table}: nft said: {error}; nothing was removed; run it as root");
        }
        (int deleted, _, error) = await NftAsync(cancel, "delete", "table", "inet", "flipcontroller");
        if (deleted != 0)
            throw new FlipException($"cannot delete table {Table}: nft said: {error}; new connections still go where it says; run it as root");
        int chains = ruleset.Split('\n').Count(l => l.TrimStart().StartsWith("chain ", StringComparison.Ordinal));
        return [$"table {Table} with its {chains} chains"];
    }

    private static async Task<(int ExitCode, string Output, string Error)> NftAsync(CancellationToken cancel, params string[] arguments)
    {
        try
        {
            using Command command = Command.Run("nft", arguments, o => o.Timeout(TimeSpan.FromSeconds(10)).CancellationToken(cancel)
                .ThrowOnError(false).EnvironmentVariable("LC_ALL", "C"));
            CommandResult result = await command.Task;
            return (result.ExitCode, result.StandardOutput, result.StandardError.Split('\n')[0].Trim());
        }
        catch (Win32Exception)
        {
            throw new FlipException($"cannot start nft to remove table {Table}: there is no such program; nothing was removed; install nftables");
        }
        catch (TimeoutException)
        {
            throw new FlipException($"nft {string.Join(' ', arguments)} did not end within 10s; it was stopped; look with `nft list tables`");
        }
    }
}
