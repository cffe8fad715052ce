using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Fronts;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Redirect;

namespace FlipController.Linux;

public static partial class Doctor
{
    /// <summary>Rules of others that a pair's NEW connections or its marks do not get past. Without rights nothing is said: other lines do.</summary>
    private static async Task<IEnumerable<CheckLine>> RulesOfOthersAsync(Configuration configuration, CancellationToken cancel)
    {
        Dictionary<string, ImmutableArray<Service>> fronts = new(StringComparer.Ordinal);
        foreach (PairOptions pair in configuration.Pairs.Values) fronts[pair.Name] = await FrontsAsync(pair, configuration.Runtime, cancel);
        try
        {
            using ForeignRules others = ForeignRules.Open();
            using var redirects = new Redirects(configuration.Runtime);
            return [.. configuration.Pairs.Values.SelectMany(pair => About(pair, others.Look(fronts[pair.Name], pair.Redirect.MarkMask, redirects.Of(pair.Redirect).Priority)))];
        }
        catch (FlipException)
        {
            return [];
        }

        static IEnumerable<CheckLine> About(PairOptions pair, ImmutableArray<Interference> found)
        {
            string subject = $"pair {pair.Name}: rules of others";
            return found.IsEmpty
                ? [new CheckLine(subject, true, "none takes its NEW connections or its bits of connection marks")]
                : found.Select(i => new CheckLine(subject, false, i.What, i.Remedy, Warning: true));
        }
    }

    /// <summary>Where the links of unix sockets' paths are to stand. None where the files cannot be read: other lines say so.</summary>
    private static async Task<IEnumerable<CheckLine>> FrontPathsAsync(Configuration configuration, CancellationToken cancel)
    {
        List<CheckLine> lines = [];
        foreach (PairOptions pair in configuration.Pairs.Values.Where(p => p.Haproxy is not null))
        {
            try
            {
                TrialCopy copy = await TrialCopy.OfAsync(pair.Haproxy!.Config, pair.Haproxy.Binary, check: false, cancel);
                foreach (UnixFront front in copy.Projection.Configuration?.Fronts ?? [])
                {
                    string subject = $"pair {pair.Name}: front path";
                    string? why = FrontPath.RefusedDirectory(front.Path);
                    lines.Add(why is null ? new CheckLine(subject, true, $"{front.Path}: a link can stand there")
                        : new CheckLine(subject, false, $"{front.Path} {why[..why.LastIndexOf("; ", StringComparison.Ordinal)]}", why[(why.LastIndexOf("; ", StringComparison.Ordinal) + 2)..]));
                }
            }
            catch (FlipException)
            {
                // The line about the configuration says why.
            }
        }
        return lines;
    }

    /// <summary>Those its active generation serves; of a pair that serves none, what its files say. None where these cannot be read: other lines say so.</summary>
    private static async Task<ImmutableArray<Service>> FrontsAsync(PairOptions pair, string runtime, CancellationToken cancel)
    {
        try
        {
            using (var redirects = new Redirects(runtime))
            {
                RedirectState there = redirects.Of(pair.Redirect).ReadAll();
                if (there.Active(pair.Name) is { } active && there.Pairs[pair.Name].Generations.TryGetValue(active, out ImmutableArray<ServicePort> ports))
                    return [.. ports.Select(p => p.Service)];
            }
            if (pair.Command is { } command) return [.. command.Services.Values];
            TrialCopy copy = await TrialCopy.OfAsync(pair.Haproxy!.Config, pair.Haproxy.Binary, check: false, cancel);
            return [.. (copy.Projection.Configuration?.Services ?? []).Select(p => p.Service)];
        }
        catch (FlipException)
        {
            return [];
        }
    }
}
