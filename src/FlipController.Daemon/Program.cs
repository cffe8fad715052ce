using System.CommandLine;
using FlipController.Daemon;

var file = new Argument<string>("FILE")
{
    Description = "The configuration file.", DefaultValueFactory = _ => "/etc/flipcontroller/flipcontroller.yaml",
};
var option = new Option<string?>("--config", "-c") { Description = "The configuration file, instead of FILE." };
var json = new Option<bool>("--log-json") { Description = "Log one JSON document a line." };
var logFile = new Option<string?>("--log-file") { Description = "Log to this file too, a new one each day, 14 kept." };
var verbose = new Option<bool>("--verbose", "-v") { Description = "Log what is ignored, too." };
var root = new RootCommand(
    "Runs HAProxy as active/standby pairs and moves NEW connections between them. It stays in the foreground; SIGHUP reads the "
    + "configuration again, SIGTERM ends it and leaves every HAProxy and rule as it is.\n\n"
    + "Exit codes: 0 ended as asked, 1 failed, 2 usage or configuration.")
{
    file, option, json, logFile, verbose,
};
root.SetAction((parsed, stop) => DaemonProcess.RunAsync(
    new ServiceArguments(
        parsed.GetValue(option) ?? parsed.GetValue(file)!, parsed.GetValue(json), parsed.GetValue(logFile), parsed.GetValue(verbose)),
    stop));
ParseResult result = root.Parse(args);
if (result.Errors.Count == 0) return await result.InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = null });
foreach (var error in result.Errors) Console.Error.WriteLine($"flipcontrollerd: {error.Message}");
return 2;
