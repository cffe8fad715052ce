using System.Text;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>Where a generation's servers began.</summary>
public enum ServerStateSource
{
    /// <summary>With what the active one knew of them.</summary>
    Active,
    /// <summary>With what was saved last.</summary>
    Saved,
    /// <summary>With a copy of the user's own file where there is one; else with nothing.</summary>
    User,
}

/// <summary>
/// What HAProxy loads at its start when its configuration says so (<c>load-server-state-from-file</c>): the state of the servers of
/// the generation that has the traffic, kept in <paramref name="path"/> for the time when none lives.
/// </summary>
public sealed class SavedServerState(string path)
{
    /// <summary>What the copies' files are called in a generation's directory.</summary>
    private const string Pattern = "server-state-*";
    private const string Nothing = "1\n# nothing was known of any server\n";

    public string Path { get; } = path;

    /// <summary>Whether a generation was started with a server state.</summary>
    public static bool IsLoadedBy(GenerationPlace place) =>
        Directory.Exists(place.Directory) && Directory.EnumerateFiles(place.Directory, Pattern).Any();

    /// <summary>Keeps what this HAProxy knows of its servers.</summary>
    public async Task SaveAsync(AdminSocket admin, CancellationToken stop) =>
        AtomicFile.Write(Path, Encoding.UTF8.GetBytes(await ReadAsync(admin, stop)));

    /// <summary>
    /// Fills the files a generation is about to load, from the active one when it answers, else from what was saved last; when there
    /// is neither, what is there stays.
    /// </summary>
    /// <param name="files">With the one backend each is about; null: all.</param>
    /// <param name="active">The admin socket of the generation that has the traffic; null: none has.</param>
    public async Task<ServerStateSource> FillAsync(
        IReadOnlyCollection<(string Path, string? Backend)> files, AdminSocket? active, CancellationToken stop)
    {
        if (files.Count == 0) return ServerStateSource.User;
        var source = ServerStateSource.Active;
        string? state = active is null ? null : await TryReadAsync(active, stop);
        if (state is null)
        {
            source = ServerStateSource.Saved;
            state = Saved();
        }
        foreach (var (file, backend) in files)
            if (state is not null) AtomicFile.Write(file, Encoding.UTF8.GetBytes(backend is null ? state : Of(backend, state)));
            // HAProxy warns of a file that is not there; this one also tells that the generation loads a state.
            else if (!File.Exists(file)) AtomicFile.Write(file, Encoding.UTF8.GetBytes(Nothing));
        return state is null ? ServerStateSource.User : source;
    }

    /// <summary>The two lines of the head, and this backend's: be_id be_name ...</summary>
    private static string Of(string backend, string state) => string.Concat(state.Split('\n')
        .Where((line, i) => i < 2 || line.Split(' ') is [_, var name, ..] && name == backend).Select(l => $"{l}\n"));

    private string? Saved()
    {
        try
        {
            string state = File.ReadAllText(Path);
            return IsWhole(state) ? state : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static async Task<string?> TryReadAsync(AdminSocket admin, CancellationToken stop)
    {
        try
        {
            return await ReadAsync(admin, stop);
        }
        catch (FlipException)
        {
            // It dies, or is mute: what was saved last is next best.
            return null;
        }
    }

    private static async Task<string> ReadAsync(AdminSocket admin, CancellationToken stop)
    {
        string state = await admin.CommandAsync("show servers state", stop);
        return IsWhole(state) ? state
            : throw new FlipException($"cannot read the state of the servers on {admin.Path}: the answer was cut; nothing was saved");
    }

    /// <summary>Version 1 is the only one there is (src/server_state.c); an answer that was cut lacks the empty line at its end.</summary>
    private static bool IsWhole(string state) =>
        state.StartsWith("1\n# be_id ", StringComparison.Ordinal) && state.EndsWith("\n\n", StringComparison.Ordinal);
}
