using System.Collections.Immutable;

namespace FlipController.Core;

/// <summary>
/// What a configuration file says, before anybody asks whether it makes sense: a tree that knows where each part stands.
/// It is neutral so that the rules (<see cref="ConfigurationReader"/>) need no YAML, and their tests no text.
/// </summary>
public abstract record ConfigurationNode(string File, int Line);

/// <param name="Text">The value as written, without its quotes.</param>
/// <param name="Quoted">Quoted text is never "nothing": <c>""</c> is an empty value, a bare key has none.</param>
public sealed record ScalarNode(string File, int Line, string Text, bool Quoted = false) : ConfigurationNode(File, Line)
{
    /// <summary>YAML's ways to say that there is no value (its core schema).</summary>
    public bool IsNothing => !Quoted && Text is ("" or "~" or "null" or "Null" or "NULL");
}

/// <summary>Entries in the order of the file. A key that stands twice is here twice: the reader refuses it.</summary>
public sealed record MapNode(string File, int Line, ImmutableArray<MapEntry> Entries) : ConfigurationNode(File, Line);

/// <param name="Line">Of the key; the value may begin on a later one.</param>
public sealed record MapEntry(string Key, int Line, ConfigurationNode Value);

public sealed record ListNode(string File, int Line, ImmutableArray<ConfigurationNode> Items) : ConfigurationNode(File, Line);
