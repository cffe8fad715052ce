using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>What a flip now would change. Nothing is touched: HAProxy reads a copy in a directory that is removed again.</summary>
internal sealed class Plan(PairEdge edge, StandbyStart start)
{
    private static int s_plans;

    public async Task<PlanReport> MakeAsync(PairState s, string? binary, CancellationToken stop)
    {
        _ = edge.Driver.Choose(binary);
        string runs = edge.Driver.BinaryOf(s.Binary), planned = binary ?? runs;
        Slot slot = s.Active?.Slot.Other() ?? Slot.Blue;
        var problems = ImmutableArray.CreateBuilder<string>();
        Snapshot? before = s.Active is { } a ? edge.Store.ReadSnapshot(a.Number) : null, after = null;
        RenderedConfiguration? rendered = null;
        string? version = null, otherSecret = null;
        string configuration = "", rules = "";
        // A directory of this plan's own: another may be made at the same time. Short, as an admin socket's path below it must fit.
        string directory = Path.Combine(edge.Runtime, $".plan{Interlocked.Increment(ref s_plans)}");
        var place = new GenerationPlace(directory, edge.Name, s.LastNumber + 1);
        try
        {
            AtomicFile.EnsurePrivateDirectory(directory);
            after = start.ReadFiles();
            configuration = await DiffAsync(directory, before, after, stop);
            version = await edge.Driver.VersionAsync(planned, stop);
            rendered = await start.RenderAsync(planned, after, place, slot, stop);
            int tag = edge.Mark.NextTag(s.LastNumber + 1, s.Generations.Select(g => g.Tag).ToHashSet());
            rules = await DiffAsync(
                directory, "ruleset", s.Active is { } active ? Rules(active.Number, active.Tag, active.Ports) : "",
                Rules(s.LastNumber + 1, tag, rendered.Services), stop);
            start.RefuseUnknown(rendered);
            otherSecret = await start.OtherSecretAsync(planned, rendered, s.Active, stop);
            await start.RefuseTakenAsync(rendered, s.Active, s.IsAdopted, stop);
            Instance instance = edge.Driver.InstanceOf(planned, rendered, place, slot, after);
            instance.WriteFiles();
            if (await instance.CheckAsync(stop) is { } rejected) problems.Add($"{instance.Called} rejects the configuration: {rejected}");
        }
        catch (FlipException e)
        {
            problems.Add(e.Message);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
        HashSet<string> now = [.. Texts(s.Active?.Ports.Select(p => p.Service) ?? []), .. s.Active?.UnixFronts.Select(f => f.Path) ?? []];
        HashSet<string> then = rendered is null ? now : [.. Texts(rendered.Services.Select(p => p.Service)), .. rendered.Fronts.Select(f => f.Path)];
        if (edge.Options.Gate.DroppedServices == DroppedServices.Refuse && now.Except(then).Any())
            problems.Add("front addresses would be dropped, which is refused without --allow-drop (gate.dropped_services)");
        if (start.Ports.Refusal is { } refusal) problems.Add(refusal);
        if (await edge.Driver.ObstacleAsync(place.Number, stop) is { } obstacle) problems.Add(obstacle);
        if (s.HeldSlot is { } held && s.Active is { } holder && holder.Slot != held)
            problems.Add($"the {held.Name()} slot is held for maintenance; `flipctl undrain {edge.Name}` gives it back");
        BinaryReport? binaryNow = s.Active is null ? null : new BinaryReport(s.Active.Binary ?? runs, s.Active.Version);
        var binaryThen = new BinaryReport(planned, version);
        return new PlanReport(
            edge.Name, after?.ContentSha256 != (s.Active is { } serving ? edge.ContentOf(serving) : null) || (binaryNow is not null && binaryNow != binaryThen), slot.Name(),
            [.. then.Except(now)], [.. now.Except(then)], [.. now.Intersect(then)],
            rendered is null ? [] : await ChangedAsync(runs, s.Active, before, rendered, stop), configuration, rules, binaryNow, binaryThen,
            await RuntimeAsync(s.Active, stop), rendered is null ? [] : [.. rendered.Notes.Select(n => n.ToString()), .. otherSecret is null ? Array.Empty<string>() : [otherSecret]], problems.ToImmutable());
    }

    private static ImmutableArray<string> Texts(IEnumerable<Service> services) =>
        [.. services.Select(t => t.ToString()).Order(StringComparer.Ordinal)];

    /// <summary>Services of both sides whose bind lines say something else: the active one's files are rendered once more for that.</summary>
    private async Task<ImmutableArray<ServiceChange>> ChangedAsync(
        string binary, Generation? active, Snapshot? before, RenderedConfiguration rendered, CancellationToken stop)
    {
        if (active is null || before is null) return [];
        ILookup<Service, RenderedBind> old;
        try
        {
            old = (await start.RenderAsync(binary, before, edge.PlaceOf(active.Number), active.Slot, stop)).Binds.ToLookup(b => b.Service);
        }
        catch (FlipException)
        {
            // It runs, but not by today's rules (another version of the daemon rendered it): nothing to compare with.
            return [];
        }
        return
        [
            .. rendered.Binds.ToLookup(b => b.Service).Where(b => old.Contains(b.Key))
                .Select(b => new ServiceChange(b.Key.ToString(), Parameters(old[b.Key]), Parameters(b)))
                .Where(c => c.Before != c.After).OrderBy(c => c.Service, StringComparer.Ordinal),
        ];

        static string Parameters(IEnumerable<RenderedBind> binds) =>
            string.Join(" | ", binds.Select(b => $"{b.Section}{(b.Parameters.Length == 0 ? "" : ": ")}{b.Parameters}"));
    }

    private async Task<ImmutableArray<RuntimeChangeReport>> RuntimeAsync(Generation? active, CancellationToken stop)
    {
        try
        {
            return await RuntimeContinuity.PlanAsync(edge, active, stop);
        }
        catch (FlipException e)
        {
            return [new RuntimeChangeReport($"{active}", "cannot be asked for runtime changes", false, e.Message)];
        }
    }

    /// <summary>The part of the table that a flip is about, as commands.</summary>
    private string Rules(int number, int tag, ImmutableArray<ServicePort> ports) =>
        edge.Redirect.Describe(edge.Name, number, edge.Mark.ValueOf(tag), edge.Mark.Mask, ports) + edge.Redirect.DescribeSwitch(edge.Name, number);

    private static async Task<string> DiffAsync(string directory, Snapshot? before, Snapshot after, CancellationToken stop)
    {
        string result = "";
        foreach (string path in (before?.Files ?? []).Concat(after.Files).Select(f => f.Path).Distinct())
            result += await DiffAsync(directory, path, Content(before, path), Content(after, path), stop);
        return result;

        static string Content(Snapshot? snapshot, string path) =>
            Encoding.Latin1.GetString(snapshot?.Files.FirstOrDefault(f => f.Path == path)?.Content ?? []);
    }

    private static async Task<string> DiffAsync(string directory, string label, string before, string after, CancellationToken stop)
    {
        string one = Path.Combine(directory, "active"), other = Path.Combine(directory, "disk");
        AtomicFile.Write(one, Encoding.Latin1.GetBytes(before));
        AtomicFile.Write(other, Encoding.Latin1.GetBytes(after));
        // diff(1) exits 1 when there is a difference.
        var diff = new ChildProcess("diff", ["-u", "--label", $"{label} (active)", "--label", $"{label} (a flip now)", one, other]);
        return (await diff.RunAsync(stop)).StandardOutput;
    }
}
