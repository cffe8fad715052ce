using FlipController.Cli;

return await CommandLine.RunAsync(args);
