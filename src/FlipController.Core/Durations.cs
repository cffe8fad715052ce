using System.Globalization;

namespace FlipController.Core;

/// <summary>Durations as operators write them: <c>250ms</c>, <c>30s</c>, <c>10m</c>, <c>1h</c>. One whole number, one unit.</summary>
public static class Durations
{
    public static bool TryParse(string text, out TimeSpan duration)
    {
        duration = default;
        int digits = 0;
        while (digits < text.Length && char.IsAsciiDigit(text[digits])) digits++;
        long unit = text[digits..] switch
        {
            "ms" => TimeSpan.TicksPerMillisecond,
            "s" => TimeSpan.TicksPerSecond,
            "m" => TimeSpan.TicksPerMinute,
            "h" => TimeSpan.TicksPerHour,
            _ => 0,
        };
        // Twelve digits of seconds are 31 millennia: what is longer is no duration but a slip.
        if (unit == 0 || digits is 0 or > 12) return false;
        Int128 ticks = (Int128)long.Parse(text.AsSpan(0, digits), CultureInfo.InvariantCulture) * unit;
        if (ticks > long.MaxValue) return false;
        duration = new TimeSpan((long)ticks);
        return true;
    }

    /// <summary>In the largest unit that keeps it whole: what <see cref="TryParse"/> reads back.</summary>
    public static string Format(TimeSpan duration) => duration.Ticks switch
    {
        0 => "0s",
        long t when t % TimeSpan.TicksPerHour == 0 => $"{t / TimeSpan.TicksPerHour}h",
        long t when t % TimeSpan.TicksPerMinute == 0 => $"{t / TimeSpan.TicksPerMinute}m",
        long t when t % TimeSpan.TicksPerSecond == 0 => $"{t / TimeSpan.TicksPerSecond}s",
        long t => $"{t / TimeSpan.TicksPerMillisecond}ms",
    };
}
