using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Linux.State;

namespace FlipController.Linux.Keepalived;

/// <summary>
/// STATE/keepalived: events that `flipctl notify` leaves while no daemon answers, a file each, whose names sort by when they were left.
/// </summary>
public static class EventSpool
{
    private const string Suffix = ".event";
    private const int Most = 10_000; // a keepalived that flaps all night

    private static string Place(string stateDirectory) => Path.Combine(stateDirectory, "keepalived");

    /// <exception cref="FlipException">It could not be left.</exception>
    public static void Leave(string stateDirectory, VrrpEvent e, DateTimeOffset at)
    {
        string place = Place(stateDirectory);
        try
        {
            AtomicFile.EnsurePrivateDirectory(place);
            string name = string.Create(CultureInfo.InvariantCulture, $"{at.UtcTicks:D20}-{Environment.ProcessId}{Suffix}");
            AtomicFile.Write(Path.Combine(place, name), Encoding.UTF8.GetBytes($"{e}\n"));
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot leave the event in {place} either: {failure.Message.TrimEnd('.')}; keepalived's script_user must be root for that", failure);
        }
    }

    /// <summary>Those that are there, in order, each removed once it was taken.</summary>
    public static void TakeUp(string stateDirectory, Action<VrrpEvent, DateTimeOffset> take, Action<string> warn)
    {
        string place = Place(stateDirectory);
        if (!Directory.Exists(place)) return;
        foreach (string file in Directory.EnumerateFiles(place, $"*{Suffix}").Order(StringComparer.Ordinal).Take(Most))
        {
            try
            {
                string name = Path.GetFileName(file), text = File.ReadAllText(file).TrimEnd('\n');
                bool hasTime = long.TryParse(name.AsSpan(0, Math.Max(0, name.IndexOf('-'))), NumberStyles.None, CultureInfo.InvariantCulture, out long ticks)
                    && ticks <= DateTime.MaxValue.Ticks;
                if (VrrpEvent.ReadLine(text, out VrrpEvent? read) is { } why) warn($"{file} is ignored, as {why}");
                else take(read!, hasTime ? new DateTimeOffset(ticks, TimeSpan.Zero) : DateTimeOffset.UnixEpoch);
                File.Delete(file);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                warn($"{file} cannot be taken up: {e.Message}");
            }
        }
    }
}
