using Xunit;

namespace FlipController.Linux.Tests.Kernel;

/// <summary>Tests that open a thousand descriptors in this process. libnftables cannot be used beside them: it waits with select(2).</summary>
[CollectionDefinition(Alone, DisableParallelization = true)]
public sealed class ManyDescriptors
{
    internal const string Alone = "thousands of descriptors in the test process";
}
