using FlipController.Core;
using FlipController.Linux.State;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Files;

public sealed class PairStoreTests
{
    [Theory]
    [InlineData(1), InlineData(10), InlineData(1000)]
    public void A_line_that_was_cut_off_takes_none_of_the_others_with_it(int missing)
    {
        using var files = new TempDir();
        var store = new PairStore(files.Path, "edge");
        void Append(int id) => store.Append(new FlipRecord(id, "files", id - 1, id, "done", DateTimeOffset.UnixEpoch, 1, null, null, null));
        Append(1);
        Append(2);
        using (var history = new FileStream(files["pairs/edge/history.jsonl"], FileMode.Open)) history.SetLength(Math.Max(0, history.Length - missing));
        Append(3);
        // Without its newline alone a record is whole.
        Assert.Equal(missing == 1 ? [1, 2, 3] : missing == 10 ? [1, 3] : [3], store.History().Select(f => f.Id));
    }
}
