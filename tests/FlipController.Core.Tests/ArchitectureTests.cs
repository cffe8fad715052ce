using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using FlipController.Core.Machine;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Core.Tests;

/// <summary>Core &lt;- Linux &lt;- Daemon; Core, Linux &lt;- Cli. The machine is pure; what is unsafe or starts programs is in Linux.</summary>
public sealed partial class ArchitectureTests
{
    private static readonly string s_source = Path.Combine(Repository.Root, "src");

    public static TheoryData<string, string[]> Arrows => new()
    {
        { "Core", [] },
        { "Linux", ["Core"] },
        { "Daemon", ["Linux"] },
        { "Cli", ["Linux"] },
    };

    [Theory]
    [MemberData(nameof(Arrows))]
    public void A_project_refers_to_those_below_it_alone(string project, string[] below) =>
        Assert.Equal(below.Select(b => $"../FlipController.{b}/FlipController.{b}.csproj"), Included(project, "ProjectReference"));

    [Fact]
    public void There_are_these_projects_and_no_others() => Assert.Equal(
        Arrows.Select(a => $"FlipController.{a.Data.Item1}").Order(StringComparer.Ordinal),
        Directory.EnumerateDirectories(s_source, "FlipController.*").Select(d => Path.GetFileName(d)).Order(StringComparer.Ordinal));

    [Theory]
    [InlineData("Core", "FlipController.Linux", "FlipController.Daemon", "FlipController.Cli", "Microsoft", "Serilog", "YamlDotNet", "Spectre")]
    [InlineData("Linux", "FlipController.Daemon", "FlipController.Cli", "Microsoft.AspNetCore", "Microsoft.Extensions", "Serilog", "Spectre")]
    [InlineData("Daemon", "FlipController.Cli", "YamlDotNet", "Medallion", "Spectre")]
    [InlineData("Cli", "FlipController.Daemon", "YamlDotNet", "Medallion", "Serilog", "Microsoft.AspNetCore")]
    public void A_project_uses_nothing_above_or_beside_it(string project, params string[] forbidden) => Assert.Empty(
        from line in Lines(project)
        from name in forbidden
        where Regex.IsMatch(line.Text, $@"^\s*(global )?using (static )?([\w]+ = )?{Regex.Escape(name)}\b")
        select line);

    [Fact]
    public void Core_has_no_package_and_only_the_framework_s_assemblies()
    {
        Assert.Empty(Included("Core", "PackageReference"));
        Assert.Empty(Included("Core", "FrameworkReference"));
        Assert.DoesNotContain(typeof(PairMachine).Assembly.GetReferencedAssemblies(), a => !a.Name!.StartsWith("System.", StringComparison.Ordinal));
    }

    /// <summary>Read from the compiled assembly: nothing hides behind a full name or an implicit using.</summary>
    [Fact]
    public void Core_does_no_input_and_no_output_and_has_no_clock()
    {
        using var file = new PEReader(File.OpenRead(typeof(PairMachine).Assembly.Location));
        MetadataReader reader = file.GetMetadataReader();
        string[] types = [.. reader.TypeReferences.Select(h => NameOf(reader, h))];
        Assert.DoesNotContain(types, Effects().IsMatch);
        string[] members = [.. reader.MemberReferences.Select(reader.GetMemberReference).Where(m => m.Parent.Kind == HandleKind.TypeReference)
            .Select(m => $"{NameOf(reader, (TypeReferenceHandle)m.Parent)}.{reader.GetString(m.Name)}")];
        Assert.DoesNotContain(members, Chance().IsMatch);
        Assert.Contains("System.DateTimeOffset.op_Subtraction", members); // The names are the ones that are looked for.
    }

    [Fact]
    public void The_machine_uses_values_alone() => Assert.Empty(
        from line in Lines("Core/Machine")
        where Using().Match(line.Text) is { Success: true } u
            && u.Groups[1].Value is not ("System.Collections.Immutable" or "System.Diagnostics" or "System.Text.Json.Serialization" or "FlipController.Core")
            || Impure().IsMatch(line.Text)
        select line);

    [Theory]
    [InlineData("Core")]
    [InlineData("Daemon")]
    [InlineData("Cli")]
    public void Only_Linux_is_unsafe_calls_the_C_library_or_starts_a_process(string project)
    {
        Assert.Empty(Included(project, "AllowUnsafeBlocks"));
        Assert.Empty(XDocument.Load(ProjectFile(project)).Descendants("AllowUnsafeBlocks"));
        Assert.Empty(from line in Lines(project) where Native().IsMatch(line.Text) select line);
    }

    [Fact]
    public void Linux_starts_processes_in_one_place() =>
        Assert.Equal(["FlipController.Linux/ChildProcess.cs"], (from line in Lines("Linux") where Starts().IsMatch(line.Text) select line.File).Distinct());

    private sealed record SourceLine(string File, int Number, string Text);

    private static IEnumerable<SourceLine> Lines(string project) =>
        from file in Directory.EnumerateFiles(Path.Combine(s_source, $"FlipController.{project}"), "*.cs", SearchOption.AllDirectories)
        let name = Path.GetRelativePath(s_source, file)
        where !name.Split('/').Any(p => p is "bin" or "obj")
        from line in File.ReadLines(file).Select((text, i) => new SourceLine(name, i + 1, text))
        where !line.Text.TrimStart().StartsWith("//", StringComparison.Ordinal)
        select line;

    private static string ProjectFile(string project) => Path.Combine(s_source, $"FlipController.{project}", $"FlipController.{project}.csproj");

    private static IEnumerable<string> Included(string project, string item) =>
        XDocument.Load(ProjectFile(project)).Descendants(item).Attributes("Include").Select(a => a.Value);

    private static string NameOf(MetadataReader reader, TypeReferenceHandle handle)
    {
        TypeReference type = reader.GetTypeReference(handle);
        return $"{reader.GetString(type.Namespace)}.{reader.GetString(type.Name)}";
    }

    [GeneratedRegex(@"^System\.(IO|Net\.Http|Net\.NetworkInformation|Threading)\.|^System\.Net\.(Dns|Sockets\.(Socket|NetworkStream|TcpClient|UdpClient))$|^System\.(Console|Environment|Random|TimeProvider)$|^System\.Diagnostics\.(Process|Stopwatch)|^System\.Runtime\.InteropServices\.(Marshal|NativeLibrary)")]
    private static partial Regex Effects();

    [GeneratedRegex(@"^System\.(DateTime|DateTimeOffset)\.get_(Now|UtcNow|Today)$|^System\.Guid\.(NewGuid|CreateVersion7)$")]
    private static partial Regex Chance();

    [GeneratedRegex(@"^\s*using (?:static )?([\w.]+);")]
    private static partial Regex Using();

    [GeneratedRegex(@"\b(async|await|lock|Task|File|Directory|Process|Socket|Stopwatch|Console|Environment|Random)\b|\b(Utc)?Now\b")]
    private static partial Regex Impure();

    [GeneratedRegex(@"\bunsafe\b|\bstackalloc\b.*\*|\b(DllImport|LibraryImport)\b|\bNativeLibrary\b|\bProcessStartInfo\b|\bProcess\.Start\b|\bMedallion\b")]
    private static partial Regex Native();

    [GeneratedRegex(@"\b(ProcessStartInfo|Medallion|Shell\.Default|posix_spawn|execve)\b|\bProcess\.Start\b|\bCommand\.Run\b")]
    private static partial Regex Starts();
}
