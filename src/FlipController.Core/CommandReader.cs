using System.Collections.Immutable;
using static FlipController.Core.ConfigurationRules;

namespace FlipController.Core;

/// <summary>Reads <c>command:</c>, and the argument lists in the manner of it.</summary>
internal static class CommandReader
{
    public static CommandOptions Read(ConfigurationSection section, FaultList faults)
    {
        var initial = new CommandOptions();
        // What is asked for by name comes first: the argument lists may name it.
        CommandOptions named = initial with
        {
            Services = ReadServices(section, faults),
            Config = section.List("config", initial.Config, AbsolutePath),
            Pidfile = section.Value<string?>("pidfile", null, FilledPath),
        };
        CheckNames(section, named, faults);
        CheckPidfile(section, named, faults);
        var options = named with
        {
            Check = Words(section, "check", named, faults),
            Start = Words(section, "start", named, faults),
            Stop = Words(section, "stop", named, faults),
            StopSignal = section.Value("stop_signal", initial.StopSignal, SignalName),
            Reload = Words(section, "reload", named, faults),
            Output = section.Value("output", initial.Output, FilledPath),
            Watch = section.Value("watch", initial.Watch, YesNo),
            AlsoWatch = section.List("also_watch", initial.AlsoWatch, AbsolutePath),
            Settle = section.Value("settle", initial.Settle, SettleTime),
            Environment = ConfigurationReader.ReadEnvironment(section, initial.Environment, faults),
            EnvironmentFiles = section.List("environment_files", initial.EnvironmentFiles, EnvironmentFile),
        };
        Refuse(section.PathOf("output"), options.Output, named, faults);
        if (!section.Has("start") && !section.IsNoMap)
            faults.Add(section.PathOf("start"), "is missing; it must be a list: the program that serves, and its arguments");
        if (section.Has("stop") && section.Has("stop_signal"))
            faults.Add(section.PathOf("stop_signal"), "must not stand beside stop: the server is told once");
        if (!options.Reload.IsEmpty && options.AlsoWatch.IsEmpty)
            faults.Add(section.PathOf("reload"), "needs also_watch: it is run when a file that is named there changes, and never else");
        return options;
    }

    /// <summary>A program and its arguments: the program by its name in PATH or its path, no unknown placeholder anywhere.</summary>
    /// <param name="commands">Null: the pair runs HAProxy, and its services have no names but their addresses.</param>
    public static ImmutableArray<string> Words(ConfigurationSection section, string key, CommandOptions? commands, FaultList faults)
    {
        ImmutableArray<string> words = section.List<string>(key, [], Word);
        if (section.Has(key) && words.IsEmpty && section.Node(key) is ListNode { Items.IsEmpty: true })
            faults.Add(section.PathOf(key), "has no words; it must be a program and its arguments, or be left out");
        for (int i = 0; i < words.Length; i++) Refuse($"{section.PathOf(key)}[{i}]", words[i], commands, faults);
        if (!words.IsEmpty && Program(words[0], out _) is { } must)
            faults.Add($"{section.PathOf(key)}[0]", $"{FaultList.Quote(words[0])} must be {must}");
        return words;
    }

    private static string? Word(string text, out string value)
    {
        value = text;
        return text.Contains('\0') ? "text without a NUL" : null;
    }

    private static void Refuse(string path, string text, CommandOptions? commands, FaultList faults)
    {
        foreach (string name in Placeholders.In(text))
            if (Wrong(name, commands) is { } wrong) faults.Add(path, $"{FaultList.Quote(text)} must be without {{{name}}}, {wrong}");
    }

    private static string? Wrong(string name, CommandOptions? commands)
    {
        if (name.StartsWith(Placeholders.Port, StringComparison.Ordinal))
        {
            string service = name[Placeholders.Port.Length..];
            if (commands is null)
                return Service.TryParse(service, out _) ? null : "as HAProxy's services have no names; a front address is one, such as {port::80}";
            return commands.Services.ContainsKey(service) ? null
                : $"which is none of services ({(commands.Services.IsEmpty ? "there is none" : Listed(commands.Services.Keys))})";
        }
        if (name.StartsWith(Placeholders.Config, StringComparison.Ordinal))
            return commands?.Config.Any(f => Placeholders.NameOf(f) == name[Placeholders.Config.Length..]) == true ? null : "which is no file of config";
        return name switch
        {
            "pair" or "slot" or "generation" => null,
            "directory" when commands is not null => null,
            "config" when commands is { Config.IsEmpty: false } => null,
            "config" => commands is null ? "which only a command pair has" : "as config has no file",
            "pidfile" when commands is { Pidfile: not null } => null,
            "pidfile" => "as there is no pidfile",
            _ => $"which is none of {Placeholders.Listed}",
        };
    }

    private static ImmutableSortedDictionary<string, Service> ReadServices(ConfigurationSection command, FaultList faults)
    {
        ConfigurationSection section = command.Section("services");
        var services = ImmutableSortedDictionary.CreateBuilder<string, Service>(StringComparer.Ordinal);
        foreach (string name in section.Keys.ToList())
        {
            if (!IsPairName(name))
                faults.Add(section.PathOf(name), $"{FaultList.Quote(name)} must be 1 to 32 of a-z, 0-9, _ and -, and begin with a letter or digit");
            Service? service = section.Value<Service?>(name, null, FrontAddress!);
            if (service is null) continue;
            if (services.FirstOrDefault(s => s.Value == service).Key is { } twin)
                faults.Add(section.PathOf(name), $"\"{service}\" must be a front address of its own; {twin} has it");
            services[name] = service;
        }
        if (!command.IsNoMap && !section.IsNoMap && !section.Keys.Any())
            faults.Add(section.Path, "is missing; it must be a map of at least 1 name and its front address, such as { web: \":80\" }");
        return services.ToImmutable();
    }

    /// <summary>The copies lie side by side.</summary>
    private static void CheckNames(ConfigurationSection section, CommandOptions options, FaultList faults)
    {
        var names = new Dictionary<string, string>(StringComparer.Ordinal);
        for (int i = 0; i < options.Config.Length; i++)
        {
            string file = options.Config[i];
            // The same file twice is told elsewhere.
            if (!names.TryAdd(Placeholders.NameOf(file), file) && names[Placeholders.NameOf(file)] != file)
                faults.Add($"{section.PathOf("config")}[{i}]",
                    $"{FaultList.Quote(file)} must have another name than {names[Placeholders.NameOf(file)]}: their copies lie in one directory");
        }
    }

    private static void CheckPidfile(ConfigurationSection section, CommandOptions options, FaultList faults)
    {
        if (options.Pidfile is not { } pidfile) return;
        Refuse(section.PathOf("pidfile"), pidfile, options with { Pidfile = null }, faults);
        if (!Placeholders.In(pidfile).Any(p => p is "generation" or "directory"))
            faults.Add(section.PathOf("pidfile"),
                $"{FaultList.Quote(pidfile)} must have {{directory}} or {{generation}} in it: an older generation of the slot may still drain, and remove its file when it ends");
    }
}
