using System.CommandLine;
using FlipController.Load;

var root = new RootCommand("HTTP load, open-loop or closed, that sees every refused, reset, cut or late connection, and a backend to aim it at.");
root.Subcommands.Add(RunVerb.Create());
root.Subcommands.Add(ServeVerb.Create());
// SIGTERM ends a run in good order: what was sent is waited for, as long as its own timeout allows.
return await root.Parse(args).InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromMinutes(1) });
