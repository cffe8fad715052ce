using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy;

/// <summary>A slot's own copy of the user's configuration: the files to write and to pass to HAProxy with -f, in this order.</summary>
/// <param name="Services">In the order in which the private ports were handed out.</param>
/// <param name="LocalPeer">
/// The name to pass with -L: the copy has no <c>localpeer</c> any more, and no <c>pidfile</c> beside -p. Null: it is in our own file.
/// </param>
public sealed record RenderedConfiguration(
    ImmutableArray<RenderedFile> Files, ImmutableArray<ServicePort> Services, string? LocalPeer)
{
    /// <summary>Our own name in place of the user's, when it is in our own file; null: it is not.</summary>
    internal (string Now, string Before)? PeerName { get; init; }

    /// <summary>Of a copy that has QUIC; null: it has none.</summary>
    internal string? ClusterSecret { get; init; }

    /// <summary>Both have QUIC, and what one has told a client to show again means nothing to the other.</summary>
    public bool HasOtherClusterSecret(RenderedConfiguration before) =>
        ClusterSecret is { } now && before.ClusterSecret is { } then && now != then;

    /// <summary>The option that goes with the files, or none.</summary>
    public IEnumerable<string> LocalPeerOption => LocalPeer is null ? [] : ["-L", LocalPeer];

    /// <summary>Where each service comes from, in the order of the files; one that is bound twice is here twice.</summary>
    public ImmutableArray<RenderedBind> Binds { get; init; } = [];

    /// <summary>In the order of the files.</summary>
    public ImmutableArray<ConfigurationNote> Notes { get; init; } = [];

    /// <summary>
    /// To be there before the copy is started; without one HAProxy warns, as it would without the user's own.
    /// </summary>
    public ImmutableArray<ServerStateFile> ServerStateFiles { get; init; } = [];

    /// <summary>
    /// Sockets at which the copy listens beside the user's own; HAProxy leaves them behind when it ends.
    /// </summary>
    public ImmutableArray<string> OwnSockets { get; init; } = [];

    /// <summary>Unix sockets that outsiders connect to; their places are among <see cref="OwnSockets"/>.</summary>
    public ImmutableArray<UnixFront> Fronts { get; init; } = [];

    /// <summary>Those of its services to which the configuration itself connects.</summary>
    public ImmutableArray<Service> Loops { get; init; } = [];

    /// <summary>Puts the user's own path, line and addresses into what HAProxy says about the copy.</summary>
    public string Explain(string haproxyOutput)
    {
        var explained = new StringBuilder(haproxyOutput.Length);
        foreach (string line in Regex.Split(haproxyOutput, "(?<=\n)"))
        {
            string text = line;
            foreach (RenderedFile file in Files)
                if (file.Source is not null) text = file.Explain(text);
            // What HAProxy says of these it says of no line.
            foreach (ServerStateFile file in ServerStateFiles) text = text.Replace(file.Path, file.UserPath, StringComparison.Ordinal);
            if (PeerName is { } name) text = text.Replace(name.Now, name.Before, StringComparison.Ordinal);
            explained.Append(text);
        }
        return explained.ToString();
    }
}

/// <param name="Source">The user's file it was made from; null for the part that is ours.</param>
/// <param name="Lines">For each line of the copy, in order, where it came from.</param>
public sealed record RenderedFile(string Path, string? Source, byte[] Content, ImmutableArray<RenderedLine> Lines)
{
    internal string Explain(string message)
    {
        var words = ImmutableArray.CreateBuilder<(string Now, string Before)>();
        string text = Regex.Replace(message, Regex.Escape(Path) + @"(?::([0-9]{1,9}))?", match =>
        {
            if (!match.Groups[1].Success) return Source!;
            int number = int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
            if (number < 1 || number > Lines.Length) return $"{Source}:{number}";
            RenderedLine line = Lines[number - 1];
            words.AddRange(line.Changed);
            return $"{Source}:{line.Number}";
        });
        foreach (var (now, before) in words)
            text = Regex.Replace(text, $@"(?<![\w:.\]]){Regex.Escape(now)}(?!\d)", _ => before);
        return text;
    }
}

/// <param name="Number">The line of the user's file it is, or stands below of.</param>
/// <param name="Changed">The words of it that are not the user's: as the copy has them, and as the user wrote them.</param>
public sealed record RenderedLine(int Number, ImmutableArray<(string Now, string Before)> Changed);

/// <summary>A front address as the user's files bind it.</summary>
/// <param name="Section"><c>frontend www</c>; <c>global</c> for a stats socket.</param>
/// <param name="Parameters">What follows the address on its line, as it is written there.</param>
public sealed record RenderedBind(Service Service, int PrivatePort, string Section, string File, int Line, string Parameters);

/// <summary>Something projected that a reader should know of.</summary>
public sealed record ConfigurationNote(string File, int Line, string Text)
{
    public override string ToString() => $"{File}:{Line}: {Text}";
}

/// <summary>A file from which the copy loads the state of its servers.</summary>
/// <param name="Path">In the slot's directory.</param>
/// <param name="UserPath">The one it stands for, as the user's files name it: relative names begin at HAProxy's working directory.</param>
/// <param name="Backend">The only backend in it; null: all of them.</param>
public sealed record ServerStateFile(string Path, string UserPath, string? Backend)
{
    /// <summary>Puts a copy of the user's there, if there is one and nobody has put anything there yet.</summary>
    /// <param name="workingDirectory">HAProxy's, where relative names begin.</param>
    public void Provide(string workingDirectory)
    {
        string user = System.IO.Path.Combine(workingDirectory, UserPath);
        if (!File.Exists(Path) && File.Exists(user)) AtomicFile.Write(Path, File.ReadAllBytes(user));
    }
}
