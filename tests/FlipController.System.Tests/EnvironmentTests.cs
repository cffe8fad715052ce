using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>A configuration that asks for variables: HAProxy gets them, a change of them is a change, a rollback takes them back.</summary>
public sealed class EnvironmentTests
{
    [Fact(Timeout = 90_000)]
    public async Task Variables_of_files_and_options_reach_HAProxy_and_flip_when_they_change()
    {
        var yaml = new PairYaml
        {
            Watch = "{ undo: 60s }",
            Haproxy = ", environment: { MODE: plain }, environment_files: [\"{dir}/env\", \"-{dir}/absent\"], local_peer: lb7",
        };
        await using PairUnderTest pair = await PairUnderTest.StartAsync(yaml, p =>
        {
            p.Files.Write("env", "# who answers\nLABEL=\"one\"\nMODE=overridden\n");
            p.Write(Config("\"${LABEL}-${MODE}-${HAPROXY_LOCALPEER}\"").Replace("bind :80\n", "bind :\"${WEB-80}\"\n.if streq(\"$MODE\",plain)\n", StringComparison.Ordinal)
                .Replace("bind :::80 v6only\n", "bind :::80 v6only\n.endif\n", StringComparison.Ordinal));
        });
        Assert.Equal("one-plain-lb7", await pair.ServedByAsync());
        Assert.Equal(["*:80", "[::]:80 v6only"], (await pair.StatusAsync()).Active!.Ports.Keys);

        pair.Files.Write("env", "LABEL=two\n");
        await pair.UntilAsync(s => s.Active?.Number == 2 && s.LastFlip?.Outcome == "done", "a changed variable should be a flip");
        Assert.Equal("two-plain-lb7", await pair.ServedByAsync());

        pair.Files.Write("absent", "LABEL=three\n");
        await pair.UntilAsync(s => s.Active?.Number == 3 && s.LastFlip?.Outcome == "done", "a file that comes should be a flip");
        Assert.Equal("three-plain-lb7", await pair.ServedByAsync());
        await pair.RollbackAsync();
        Assert.Equal("two-plain-lb7", await pair.ServedByAsync());
    }
}
