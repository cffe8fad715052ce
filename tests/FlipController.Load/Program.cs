using System.CommandLine;
using FlipController.Load;

var root = new RootCommand("Open-loop HTTP load that sees every refused, reset, cut or late connection, and a backend to aim it at.");
root.Subcommands.Add(RunVerb.Create());
root.Subcommands.Add(ServeVerb.Create());
return await root.Parse(args).InvokeAsync();
