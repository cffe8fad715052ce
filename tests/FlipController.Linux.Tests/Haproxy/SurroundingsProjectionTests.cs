using System.Text;
using FlipController.Linux.Haproxy;
using Xunit;
using static FlipController.Linux.Tests.Haproxy.Projected;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>What a configuration asks of its surroundings: variables and conditions.</summary>
public sealed class SurroundingsProjectionTests
{
    [Fact]
    public void Variables_are_expanded_where_they_decide_and_nowhere_else() =>
        Assert.Equal("""
            global
             setenv PORT 443
             presetenv PORT 444
            peers p
             peer "${ME}" 10.0.0.1:21000
             peer lb2 "10.0.0.2:${PEER_PORT}"
            frontend "${NAME-www}" # "$NAME"
             bind 10.0.0.1:21001 name "$NAME"
             bind 10.0.0.1:21002 ssl crt "${CERTS}/x.pem"
             "${KEYWORD}" "*:21003,*:21004"
             http-request set-header X "$NAME ${PORT}"
             bind 10.0.0.1:21005

            """, Copy("""
            global
             setenv PORT 443
             presetenv PORT 444
            peers p
             peer "${ME}" "$ADDR:${PEER_PORT}"
             peer lb2 "10.0.0.2:${PEER_PORT}"
            frontend "${NAME-www}" # "$NAME"
             bind "${ADDR}:80" name "$NAME"
             bind $ADDR:$PORT ssl crt "${CERTS}/x.pem"
             "${KEYWORD}" "*:90,*:91"
             http-request set-header X "$NAME ${PORT}"
             bind 10.0.0.1:"${NONE-92}"

            """, With(("ME", "lb1"), ("ADDR", "10.0.0.1"), ("PEER_PORT", "1024"), ("KEYWORD", "bind"))));

    [Fact]
    public void A_list_becomes_the_words_of_its_line() =>
        Assert.Equal("listen a\n bind :21000 name x\n bind :21001 v6only\n",
            Copy("listen a\n bind \"${ARGS[*]}\"\n bind \"${ONE[*]}\" v6only\n", With(("ARGS", ":80 name x"), ("ONE", ":81"))));

    [Theory]
    [InlineData("unsetenv A", "\"${A-:81}\"", "*:81")]
    [InlineData("resetenv B", "\"${A-:81}\"", "*:81")]
    [InlineData("resetenv A", "\"${A-:81}\"", "*:80")]
    [InlineData("setenv A :82", "$A", "*:82")]
    [InlineData("presetenv A :82", "$A", "*:80")]
    [InlineData("localpeer me", "127.0.0.1:8\"${HAPROXY_LOCALPEER}\"", null)]
    public void Global_lines_change_the_variables(string line, string address, string? service)
    {
        string text = $"global\n {line}\nlisten a\n bind {address}\n";
        if (service is not null) Assert.Equal([service], Of(text, With(("A", ":80"))).Services.Select(s => s.Service.ToString()));
        else Assert.Equal(["4: bind \"127.0.0.1:8me\" has no port between 1 and 65535"], Faults(text));
    }

    [Fact]
    public void What_a_newer_HAProxy_says_of_itself_is_known_when_it_is()
    {
        HaproxySurroundings newer = Bare with { Build = Bare.Build! with { Version = HaproxyVersion.Parse("HAProxy version 3.2.1")! } };
        const string text = ".if streq(\"$HAPROXY_BRANCH\",3.2) && defined(HAPROXY_TCP_LOG_FMT)\nlisten a\n bind :80\n.endif\nlisten b\n bind :81\n";
        Assert.Equal(2, Of(text, newer).Services.Length);
        Assert.Single(Of(text).Services);
        Assert.Equal(["2: bind \"${HAPROXY_TCP_LOG_FMT}:80\" holds a variable whose value is not known here; write the value itself"],
            Faults("listen a\n bind \"${HAPROXY_TCP_LOG_FMT}:80\"\n", newer));
    }

    [Fact]
    public void The_place_in_the_users_file_is_written_out() =>
        Assert.Equal("defaults\n mode http\nlisten a # \"${.LINE}\"\n    option idle-close-on-response\n bind :21000\n http-request set-header X /etc/haproxy/haproxy.cfg:5:a\n",
            Copy("defaults\n mode http\nlisten a # \"${.LINE}\"\n bind :80\n http-request set-header X \"${.FILE}:${.LINE}:${.SECTION}\"\n"));

    [Fact]
    public void Only_the_lines_that_are_taken_count()
    {
        RenderedConfiguration rendered = Of("""
            .if defined(A) && version_atleast(2.4)
            listen a
             bind :80
            .if streq("$A",no)
             bind abns@x
            .elif feature(OPENSSL)
             bind :81
            .elif 1
             bind :82
            .else
             bind :83
            .endif
            .else
            listen b
             bind udp@:53
            .if bogus
            .endif
            .endif
            listen c
             bind :84
             .notice "bind :85"

            """, With(("A", "yes")));
        Assert.Equal("*:80 *:81 *:84", string.Join(' ', rendered.Services.Select(s => s.Service)));
        Assert.Contains(" bind abns@x\n.elif feature(OPENSSL)\n bind :21001\n.elif 1\n bind :82\n", Encoding.UTF8.GetString(rendered.Files[1].Content));
    }

    [Fact]
    public void A_condition_nobody_can_answer_is_refused() =>
        Assert.Equal(
            [
                "1: .if \"enabled(EPOLL)\" has no answer here; HAProxy does not understand it, or it asks for what only a running HAProxy knows",
                "4: .if \"nonsense\" has no answer here; HAProxy does not understand it, or it asks for what only a running HAProxy knows",
            ],
            Faults(".if enabled(EPOLL)\n.elif 1\n.endif\n.if nonsense\n.endif\nlisten a\n bind :80\n"));

    [Fact]
    public void What_the_program_answers_counts_unless_the_file_has_switched_it_off()
    {
        HaproxySurroundings asked = Bare with { Condition = c => c == "enabled(EPOLL)" };
        const string text = ".if enabled(EPOLL)\nlisten a\n bind :80\n.endif\nlisten b\n bind :81\n";
        Assert.Equal(2, Of(text, asked).Services.Length);
        Assert.Single(Of($"global\n noepoll\n{text}", asked).Services);
    }

    [Fact]
    public void HAProxy_is_given_what_the_files_and_the_options_say()
    {
        var options = new FlipController.Core.HaproxyOptions
        {
            Config = ["/a"], Environment = System.Collections.Immutable.ImmutableSortedDictionary<string, string>.Empty.Add("A", "3").Add("C", "4"),
        };
        Assert.Equal([new("A", "3"), new("B", "2"), new("C", "4")], HostSurroundings.Variables(options, ["A=1\nB=1\n"u8.ToArray(), "B=2\n"u8.ToArray()]));
    }

    [Fact]
    public void A_build_is_what_it_says_of_itself()
    {
        HaproxyBuild build = HaproxyBuild.Parse("HAProxy version 3.0.5-8e879a5 2024/09/19\nFeature list : -51DEGREES +EPOLL +OPENSSL -QUIC +QUIC_OPENSSL_COMPAT\n\nRunning on OpenSSL version : OpenSSL 3.0.22 25 Aug 2026\n")!;
        Assert.Equal(("3.0.5-8e879a5", true, "OpenSSL 3.0.22 25 Aug 2026"), (build.Version.Text, build.Features.Contains("EPOLL"), build.SslLibrary));
        Assert.DoesNotContain("QUIC", build.Features);
        Assert.Null(HaproxyBuild.Parse("nginx version: 1.2"));
    }
}
