using FlipController.Linux.Kernel;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

public sealed class SteadyTimeTests
{
    /// <summary>A wall clock that can be set, beside one that only goes.</summary>
    private sealed class SetClock : TimeProvider
    {
        public TimeSpan Gone { get; set; }
        public TimeSpan SetBy { get; set; }
        public override long TimestampFrequency => TimeSpan.TicksPerSecond;
        public override long GetTimestamp() => Gone.Ticks;
        public override DateTimeOffset GetUtcNow() => new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero) + Gone + SetBy;
    }

    [Fact]
    public void Whoever_sets_the_clock_moves_no_deadline_and_it_is_told_by_how_much()
    {
        using var files = new TempDir();
        var clock = new SetClock();
        SteadyTime time = SteadyTime.Begin(clock, files["clock"], "boot", clock.Gone, out TimeSpan setBy);
        Assert.Equal(TimeSpan.Zero, setBy);
        DateTimeOffset began = time.GetUtcNow();
        clock.Gone = TimeSpan.FromMinutes(1);
        clock.SetBy = TimeSpan.FromDays(-3);
        Assert.Equal(TimeSpan.FromMinutes(1), time.GetUtcNow() - began);
        Assert.Equal(TimeSpan.FromDays(-3), time.Ahead);

        // The next one goes by the clock as it is, and knows by how much it was set.
        clock.Gone = TimeSpan.FromMinutes(5);
        SteadyTime next = SteadyTime.Begin(clock, files["clock"], "boot", clock.Gone, out setBy);
        Assert.Equal(TimeSpan.FromDays(-3), setBy);
        Assert.Equal((clock.GetUtcNow(), TimeSpan.Zero), (next.GetUtcNow(), next.Ahead));
        SteadyTime.Begin(clock, files["clock"], "boot", clock.Gone, out setBy);
        Assert.Equal(TimeSpan.Zero, setBy);
    }

    [Theory]
    [InlineData("another 0 1767225600000\n"), InlineData(""), InlineData("boot"), InlineData("boot x y\n"), InlineData("boot 0 99999999999999999\n"), InlineData("boot 0 -1\n")]
    public void After_a_reboot_or_from_a_note_that_says_nothing_the_clock_is_taken_as_it_is(string note)
    {
        using var files = new TempDir();
        files.Write("clock", note);
        SteadyTime.Begin(new SetClock { SetBy = TimeSpan.FromDays(1) }, files["clock"], "boot", TimeSpan.Zero, out TimeSpan setBy);
        Assert.Equal(TimeSpan.Zero, setBy);
    }

    [Fact]
    public void The_real_clock_goes_on()
    {
        using var files = new TempDir();
        SteadyTime.Begin(TimeProvider.System, files["clock"], out _);
        SteadyTime time = SteadyTime.Begin(TimeProvider.System, files["clock"], out TimeSpan setBy);
        Assert.Equal((TimeSpan.Zero, TimeSpan.Zero), (setBy, time.Ahead));
    }
}
