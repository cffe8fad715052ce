using System.Collections;
using System.Collections.Immutable;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>What we read of a file against what the real HAProxy reads of it.</summary>
public sealed class HaproxyAgreementTests
{
    private static readonly ImmutableSortedDictionary<string, string> Variables = ImmutableSortedDictionary<string, string>.Empty
        .Add("A", "alpha").Add("EMPTY", "").Add("LIST", "one two  three").Add("SPACED", " x ").Add("_U1", "under").Add("QUOTE", "a\"b'c\\d$A");

    private const int Chunk = 40;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory(Timeout = 60_000)]
    [InlineData("1")]
    [InlineData("0")]
    [InlineData("-1")]
    [InlineData("00")]
    [InlineData("0x0")]
    [InlineData("0x10")]
    [InlineData("08")]
    [InlineData("+5")]
    [InlineData("!1")]
    [InlineData("!!1")]
    [InlineData("! 0")]
    [InlineData("")]
    [InlineData("1x")]
    [InlineData("true")]
    [InlineData("1 1")]
    [InlineData("1&&0")]
    [InlineData("1 && 0 || 1")]
    [InlineData("0||1&&0")]
    [InlineData("0 || bogus")]
    [InlineData("1 || bogus(x)")]
    [InlineData("(1)")]
    [InlineData("( 1 || 0 ) && (0)")]
    [InlineData("!(1&&(0||1))")]
    [InlineData("(1")]
    [InlineData("()")]
    [InlineData("1 &&")]
    [InlineData("|| 1")]
    [InlineData("defined(A)")]
    [InlineData("defined(EMPTY)")]
    [InlineData("defined(NONE)")]
    [InlineData("!defined(NONE)")]
    [InlineData("defined")]
    [InlineData("defined (A)")]
    [InlineData("defined(A,B)")]
    [InlineData("defined(A")]
    [InlineData("defined( A )")]
    [InlineData("defined(A) && defined(EMPTY)&&!defined(NONE)")]
    [InlineData("streq(a,a)")]
    [InlineData("streq(a, a)")]
    [InlineData("streq(a,'a')")]
    [InlineData("streq(\\'a,b\\',\\\"a,b\\\")")]
    [InlineData("streq(\"$A\",alpha)")]
    [InlineData("streq(\"${NONE-alpha}\",\"$A\")")]
    [InlineData("streq(\"$EMPTY\",)")]
    [InlineData("streq(a)")]
    [InlineData("streq(a,b,c)")]
    [InlineData("strneq(a,b)")]
    [InlineData("strneq(\"$A\",\"$A\") || streq(1,1)")]
    [InlineData("feature(OPENSSL)")]
    [InlineData("feature(QUIC)")]
    [InlineData("feature(PCRE)")]
    [InlineData("feature(OPEN)")]
    [InlineData("!feature(THREAD) || feature(NS)")]
    [InlineData("version_atleast(2.6)")]
    [InlineData("version_atleast(2.6.12)")]
    [InlineData("version_atleast(2.6.13)")]
    [InlineData("version_atleast(2.6.12-1)")]
    [InlineData("version_atleast(2.6.12-2)")]
    [InlineData("version_atleast(2.6-dev3)")]
    [InlineData("version_atleast(2)")]
    [InlineData("version_atleast(3)")]
    [InlineData("version_atleast(99.0)")]
    [InlineData("version_atleast(x)")]
    [InlineData("version_atleast()")]
    [InlineData("version_before(2.7-dev1)")]
    [InlineData("version_before(2.6.12)")]
    [InlineData("version_before(bogus)")]
    [InlineData("openssl_version_atleast(1.1.1)")]
    [InlineData("openssl_version_before(3.0.0)")]
    [InlineData("openssl_version_before(4.0.0) && !openssl_version_atleast(9.0.0)")]
    [InlineData("ssllib_name_startswith(OpenSSL)")]
    [InlineData("ssllib_name_startswith(LibreSSL)")]
    [InlineData("nosuch(x)")]
    public async Task A_condition_has_the_answer_HAProxy_gives(string condition)
    {
        using var directory = new TemporaryDirectory();
        await File.WriteAllTextAsync(directory.File("a.cfg"), $".if {condition}\n.notice TAKEN\n.else\n.notice LEFT\n.endif\n", Cancellation);
        HaproxyCheck said = await HaproxyBinary.CheckAsync("haproxy", [directory.File("a.cfg")], "lb1", directory.Path, Variables, Cancellation);
        bool? expected = said.Output.Contains("'TAKEN'", StringComparison.Ordinal) ? true
            : said.Output.Contains("'LEFT'", StringComparison.Ordinal) ? false : null;

        HaproxySurroundings surroundings = await HostSurroundings.OfAsync("haproxy", Variables, Cancellation);
        var environment = new HaproxyEnvironment(surroundings, "lb1");
        ConfigurationLine line = ConfigurationLine.Read($".if {condition}\n", environment);
        Assert.Equal(expected, ConfigurationCondition.Holds(
            string.Join(' ', line.Words.Skip(1).Select(w => w.Text)), environment, surroundings, ImmutableHashSet<string>.Empty));
    }

    [Fact(Timeout = 60_000)]
    public async Task A_word_is_what_HAProxy_reads()
    {
        string[] pieces =
        [
            "a", "$A", "${A}", "\"", "'", "\\", "\\\\", "\\\"", "\\'", "\\$", "\\ ", "\\#", "\\x41", "\\t", "\"$A\"", "\"${A}\"", "\"${NONE}\"",
            "\"${NONE-default}\"", "\"${EMPTY-default}\"", "\"${A-x}\"", "\"${NONE-a b\"c'd\\e$f}\"", "\"$_U1\"", "\"$QUOTE\"", "\"$SPACED\"",
            "\"$HAPROXY_LOCALPEER\"", "\"${.LINE}\"", "\"$A$A\"", "\"'$A'\"", "'\"$A\"'", "\"\\$A\"", "\"$A\\\"\"", "{", "}", "-", "é", "\"${A}b\"", "\"$Ab\"",
        ];
        var random = new Random(20_261);
        string[] words = [.. pieces, .. Enumerable.Range(0, 1500).Select(_ =>
            string.Concat(Enumerable.Range(0, random.Next(1, 5)).Select(_ => pieces[random.Next(pieces.Length)])))];
        using var directory = new TemporaryDirectory();
        HaproxySurroundings surroundings = await HostSurroundings.OfAsync("haproxy", Variables, Cancellation);
        // After 50 lines that it cannot read HAProxy gives a file up.
        foreach (var (number, part) in words.Chunk(Chunk).Index())
            await File.WriteAllLinesAsync(directory.File($"{number:000}.cfg"), part.Select(w => $".notice {w}"), Cancellation);
        HaproxyCheck said = await HaproxyBinary.CheckAsync("haproxy", [directory.Path], "lb1", directory.Path, Variables, Cancellation);
        Dictionary<int, string> told = Regex.Matches(said.Output, @"^\[NOTICE\].*?parsing \[.*?/(\d+).cfg:(\d+)\]: '(.*)'\.$", RegexOptions.Multiline)
            .ToDictionary(m => int.Parse(m.Groups[1].Value, null) * Chunk + int.Parse(m.Groups[2].Value, null) - 1, m => m.Groups[3].Value);
        int compared = 0;
        for (int i = 0; i < words.Length; i++)
        {
            if (!told.TryGetValue(i, out string? expected)) continue;
            var environment = new HaproxyEnvironment(surroundings, "lb1") { Line = i % Chunk + 1 };
            ConfigurationLine line = ConfigurationLine.Read(HaproxyEnvironment.Bytes($".notice {words[i]}\n"), environment);
            // HAProxy prints control characters as they are; the tests have one, a tab.
            Assert.True(expected == HaproxyEnvironment.Shown(line[1]), $"{words[i]}: HAProxy reads {expected}, we read {line[1]}");
            compared++;
        }
        Assert.InRange(compared, 700, words.Length);
    }

    [Theory(Timeout = 30_000)]
    [InlineData("localhost", AddressFamily.Unspecified)]
    [InlineData("localhost", AddressFamily.InterNetwork)]
    [InlineData("127.1", AddressFamily.Unspecified)]
    public Task A_name_has_an_address(string name, AddressFamily family)
    {
        Assert.True(IPAddress.IsLoopback(HostNames.Resolve(name, family)!));
        Assert.Null(HostNames.Resolve("no-such-host.invalid", AddressFamily.Unspecified));
        return Task.CompletedTask;
    }
}
