using System.CommandLine;
using System.Diagnostics;
using System.Text.Json;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Linux;
using FlipController.Linux.Keepalived;

namespace FlipController.Cli;

/// <summary>keepalived's generic notify script. A second after a STOP script was started keepalived kills it: there is no time to lose.</summary>
internal static class NotifyVerb
{
    // Of the second, start-up included; what is left is for leaving the event.
    private static readonly TimeSpan s_whole = TimeSpan.FromMilliseconds(600), s_atLeast = TimeSpan.FromMilliseconds(100);

    public static Verb Create()
    {
        var type = new Argument<string>("TYPE") { Description = "INSTANCE or GROUP" };
        var name = new Argument<string>("NAME") { Description = "The name in keepalived's configuration" };
        var state = new Argument<string>("STATE") { Description = "MASTER, BACKUP, FAULT, STOP or DELETED" };
        var priority = new Argument<string?>("PRIORITY") { Description = "Of an instance; of a group it means nothing", Arity = ArgumentArity.ZeroOrOne };
        type.CompletionSources.Add("INSTANCE", "GROUP");
        state.CompletionSources.Add([.. VrrpEvent.StateWords]);
        Option<string?> config = ConfigOption();
        return new Verb("notify",
            "Hands an event of keepalived over to the daemon, or leaves it for its next start; ends in under a second, for keepalived's `notify`",
            ["flipctl notify INSTANCE VI_1 MASTER 100", "notify \"/usr/sbin/flipctl notify\"    # in keepalived.conf: keepalived adds the rest"],
            (call, cancel) => Task.Run(() =>
            {
                TimeSpan spent = DateTime.Now - Process.GetCurrentProcess().StartTime;
                if (VrrpEvent.Read(call.Value(type)!, call.Value(name)!, call.Value(state)!, call.Value(priority), out VrrpEvent? e) is { } why)
                    throw new VerbFailure(ExitCode.Usage, $"notify: {why}; nothing was handed over");
                DateTimeOffset at = DateTimeOffset.UtcNow;
                string body = JsonSerializer.Serialize(new KeepalivedEventRequest(call.Value(type)!, e!.Name, call.Value(state)!, e.Priority), WireJson.Default.KeepalivedEventRequest);
                if (QuickAsk.Send(call.Daemon.Socket, "/v1/keepalived/events", body, s_whole - spent > s_atLeast ? s_whole - spent : s_atLeast, out string unreached) is not null)
                    return ExitCode.Done;
                string place = StateDirectory(call.Value(config), out _);
                try
                {
                    EventSpool.Leave(place, e, at);
                }
                catch (FlipException failure)
                {
                    throw new VerbFailure(ExitCode.Failed, $"notify: {unreached}; {failure.Message}; the event is lost, unless keepalived's FIFO is read");
                }
                call.Terminal.Note($"notify: {unreached}; the event is left for the daemon in {place}/keepalived");
                return ExitCode.Done;
            }, cancel)) { type, name, state, priority, config };
    }

    public static Option<string?> ConfigOption() => Arguments.ConfigFile(
        $"The daemon's configuration, for when it does not answer; {DefaultFile} by default");

    public const string DefaultFile = "/etc/flipcontroller/flipcontroller.yaml";

    /// <summary>As configured; where no configuration can be read, the default.</summary>
    public static string StateDirectory(string? file, out Configuration? configuration)
    {
        configuration = file is not null || File.Exists(DefaultFile) ? YamlFile.ReadConfiguration(file ?? DefaultFile).Configuration : null;
        return configuration?.State ?? new Configuration().State;
    }
}
