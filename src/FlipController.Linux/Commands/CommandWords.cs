using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;
using FlipController.Linux.Haproxy;

namespace FlipController.Linux.Commands;

/// <summary>What <see cref="Placeholders"/> stand for in one generation.</summary>
public sealed record CommandWords(PairOptions Pair, GenerationPlace Place, Slot Slot, ImmutableArray<ServicePort> Ports)
{
    public CommandWords(PairOptions pair, GenerationPlace place, Generation generation) : this(pair, place, generation.Slot, generation.Ports) { }

    /// <summary>Null: it is none of ours, or its name is nobody's.</summary>
    public string? Value(string name) => name switch
    {
        "pair" => Pair.Name,
        "slot" => Slot.Name(),
        "generation" => Place.Number.ToString(CultureInfo.InvariantCulture),
        "directory" => Place.Directory,
        "config" => Pair.Command is { Config: [var first, ..] } ? CopyOf(first) : null,
        "pidfile" => Pair.Command is { Pidfile: { } pidfile } ? Fill(pidfile) : null,
        _ when name.StartsWith(Placeholders.Port, StringComparison.Ordinal) =>
            PortOf(name[Placeholders.Port.Length..])?.ToString(CultureInfo.InvariantCulture),
        _ when name.StartsWith(Placeholders.Config, StringComparison.Ordinal) =>
            Pair.Command?.Config.FirstOrDefault(f => Placeholders.NameOf(f) == name[Placeholders.Config.Length..]) is { } file ? CopyOf(file) : null,
        _ => null,
    };

    public string CopyOf(string file) => Path.Combine(Place.Directory, "config", Placeholders.NameOf(file));

    public string Fill(string text) => Placeholders.Fill(text, Value);

    /// <exception cref="FlipException">A word asks for the port of a service that this generation does not have.</exception>
    public ChildProcess Fill(ImmutableArray<string> words)
    {
        if (words.SelectMany(Placeholders.In).FirstOrDefault(p => Placeholders.IsNamed(p) && Value(p) is null) is { } unknown)
            throw new FlipException($"{{{unknown}}} in \"{string.Join(' ', words)}\" is nothing that generation {Place.Number} has; "
                + $"it serves {string.Join(", ", Ports.Select(p => p.Service))}");
        return new ChildProcess(Fill(words[0]), [.. words.Skip(1).Select(Fill)]);
    }

    /// <summary>By the name of a service, or by its front address, which is all that HAProxy's have.</summary>
    private int? PortOf(string name)
    {
        Service? service = Pair.Command?.Services.GetValueOrDefault(name) ?? (Service.TryParse(name, out Service? front) ? front : null);
        return service is null ? null : Ports.FirstOrDefault(p => p.Service == service)?.PrivatePort;
    }
}
