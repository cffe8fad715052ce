using FlipController.Linux.Tests.Hold;
using Xunit.Runner.InProc.SystemConsole;

return args switch
{
    [ArmingProcess.Verb, var receiver, var max] => ArmingProcess.Run(receiver, max),
    [HoldingProcess.Verb, var port, var max] => HoldingProcess.Run(port, max),
    _ => await ConsoleRunner.Run(args),
};
