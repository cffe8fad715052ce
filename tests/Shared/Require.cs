using Xunit;

namespace FlipController.Tests.Shared;

/// <summary>
/// A test that cannot run here is skipped and says what is missing. With FLIP_REQUIRE=netns,haproxy,… in the environment what is
/// named there must be present: the test fails.
/// </summary>
public static class Require
{
    private static readonly Lazy<string?> s_netns = new(ProbeNetns), s_plug = new(ProbePlug);

    public static void Netns() => That("netns", s_netns.Value);

    /// <summary>A kernel with sch_plug, for tests with the trait needs=plug: `tests/run.sh --tier vm` boots one where this has none.</summary>
    public static void Plug()
    {
        Netns();
        That("plug", s_plug.Value);
    }

    /// <returns>Its path.</returns>
    public static string Program(string name)
    {
        var path = Programs.Find(name);
        That(name, path is null ? "not installed" : null);
        return path!;
    }

    /// <param name="missing">Why it is not there; null when it is.</param>
    public static void That(string capability, string? missing)
    {
        if (missing is null) return;
        var required = (Environment.GetEnvironmentVariable("FLIP_REQUIRE") ?? "").Split(',', StringSplitOptions.TrimEntries);
        if (required.Contains(capability)) Assert.Fail($"{capability} is required by FLIP_REQUIRE: {missing}");
        Assert.Skip($"{capability}: {missing}");
    }

    private static string? ProbeNetns()
    {
        if (!Environment.IsPrivilegedProcess) return "needs root";
        if (Programs.Find("ip") is null) return "the ip program (iproute2) is not installed";
        try
        {
            Shared.Netns.Create().Dispose();
            return null;
        }
        catch (InvalidOperationException e)
        {
            return e.Message;
        }
    }

    private static string? ProbePlug()
    {
        if (Programs.Find("tc") is null) return "the tc program (iproute2) is not installed";
        using var netns = Shared.Netns.Create();
        try
        {
            netns.Exec("tc", "qdisc", "add", "dev", "lo", "root", "plug", "limit", "1000000");
            return null;
        }
        catch (InvalidOperationException e)
        {
            return $"this kernel has no sch_plug: {e.Message}";
        }
    }
}
