using System.Collections.Immutable;
using static FlipController.Linux.Tests.Haproxy.Grammar.GrammarCase;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>Quotes, escapes, variables, conditions, bytes: configuration manual, 2.2 to 2.4.</summary>
internal static class WordCases
{
    private static ImmutableDictionary<string, string> Variables(params (string Name, string Value)[] all) =>
        all.ToImmutableDictionary(v => v.Name, v => v.Value);

    public static IEnumerable<GrammarCase> All =>
    [
        Moved("quotes around an address", """
            listen a
             bind "127.0.0.1:80" name "the #1 of \"all\""   # bind :81
             bind '127.0.0.1:82' name 'it''s'
             bind 127.0.0.1':'"8"'3' name x#y

            """, "127.0.0.1:80 21000", "127.0.0.1:82 21001", "127.0.0.1:83 21002"),
        Moved("escapes in an address", """
            listen a
             bind 127.0.0.1\x3a80
             bind \x31\x32\x37.0.0.1:81 name a\ b
             bind "127.0.0.1\x3a82" # in quotes too

            """, "127.0.0.1:80 21000", "127.0.0.1:81 21001", "127.0.0.1:82 21002"),
        Moved("escapes that stay", """
            frontend a
             mode http
             bind 127.0.0.1:80
             http-request set-header x-a "a\"b\\c" if { path -m reg ^/[a-z]+\#\ x$ }
             http-request set-header x-b a\ \ b\tc\x41\'\"
             log-format "%ci \"%r\" 'q' %{+Q}[capture.req.uri] \$5"
             http-request return status 200

            """, "127.0.0.1:80 21000"),
        Moved("a comment character inside quotes", "listen a\n bind '127.0.0.1:80' name \"#\" #\"\n bind 127.0.0.1:81 name \\# # '\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("variables in quotes", "listen a\n bind \"${ADDR}:80\" name \"${NAME}\"\n bind \"$ADDR:81\"\n bind \"127.0.0.1:${PORT}\"\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001", "127.0.0.1:8080 21002") with
        { Environment = Variables(("ADDR", "127.0.0.1"), ("PORT", "8080"), ("NAME", "a b")) },
        Moved("variables without quotes in an address", "listen a\n bind ${ADDR}:80\n bind 127.0.0.1:${PORT}\n", "127.0.0.1:80 21000", "127.0.0.1:8080 21001") with
        { Environment = Variables(("ADDR", "127.0.0.1"), ("PORT", "8080")) },
        Moved("variables with defaults", "listen a\n bind \"${ADDR-127.0.0.1}:${PORT-8080}\"\n bind \"${SET-127.0.0.2}:81\"\n",
            "127.0.0.1:8080 21000", "127.0.0.3:81 21001") with
        { Environment = Variables(("SET", "127.0.0.3")) },
        Moved("a variable that is a list of words", "listen a\n mode http\n bind \"${WORDS[*]}\"\n http-request return status 200\n", "127.0.0.1:80 21000") with
        { Environment = Variables(("WORDS", "127.0.0.1:80 name web maxconn 10")) },
        Moved("a list of words inside a word", "listen a\n bind \"127.0.0.1:${PORTS[*]}\"\n", "127.0.0.1:80 21000") with
        { Environment = Variables(("PORTS", "80 name web")) },
        Moved("a variable that is a keyword", "listen a\n \"${KEYWORD}\" 127.0.0.1:80\n", "127.0.0.1:80 21000") with
        { Environment = Variables(("KEYWORD", "bind")) },
        Moved("a variable that is empty, or not there", "listen a\n bind \"${EMPTY}127.0.0.1:80${NOTHING}\"\n", "127.0.0.1:80 21000") with
        { Environment = Variables(("EMPTY", "")) },
        Moved("a comma list in a variable", "listen a\n bind \"${ALL}\"\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001") with
        { Environment = Variables(("ALL", "127.0.0.1:80,127.0.0.1:81")) },
        Moved("a variable's value is not read again", "listen a\n bind 127.0.0.1:80 name \"${V}\"\n", "127.0.0.1:80 21000") with
        { Environment = Variables(("V", "a # \" ' \\ b")) },
        Moved("variables that the file sets", """
            global
             setenv A 127.0.0.1
             presetenv B 81
             presetenv C 99
             setenv D 1
             unsetenv D
            listen a
             bind "${A}:80"
             bind "${A}:${B}"
             bind "${A}:${C}"
             bind "${A}:${D-83}"

            """, "127.0.0.1:80 21000", "127.0.0.1:81 21001", "127.0.0.1:82 21002", "127.0.0.1:83 21003") with
        { Environment = Variables(("A", "127.0.0.9"), ("C", "82")) },
        Moved("variables that the file takes away", "global\n resetenv KEPT\nlisten a\n bind \"${KEPT-127.0.0.8}:80\"\n bind \"${GONE-127.0.0.1}:81\"\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001") with
        { Environment = Variables(("KEPT", "127.0.0.1"), ("GONE", "127.0.0.9")) },
        Moved("the file's own name in a variable", "listen a\n mode http\n bind 127.0.0.1:80\n http-request return status 200 hdr x-a \"${HAPROXY_LOCALPEER}\"\npeers p\n peer \"${HAPROXY_LOCALPEER}\" 127.0.0.1:1024\n",
            "127.0.0.1:80 21000", "127.0.0.1:1024 21001"),

        Moved("a condition on a variable", """
            .if defined(EDGE)
            frontend edge
             bind 127.0.0.1:80
            .else
            frontend inner
             bind 127.0.0.1:8080
            .endif
            .if !defined(EDGE)
            frontend more
             bind 127.0.0.1:81
            .endif

            """, "127.0.0.1:80 21000") with
        { Environment = Variables(("EDGE", "1")) },
        Moved("conditions one in another", """
            .if streq("$SITE",a)
              .if strneq("$SITE",a)
            frontend never
             bind 127.0.0.1:1
              .elif version_atleast(2.4)
                .if feature(OPENSSL) && (feature(NOTHING) || !feature(NOTHING))
            frontend here
             bind 127.0.0.1:80
                .else
             bogus
                .endif
              .else
             bogus
              .endif
            .elif streq("$SITE",b)
             bogus
              .if 1
             bogus
              .else
             bogus
              .endif
            .else
             bogus
            .endif

            """, "127.0.0.1:80 21000") with
        { Environment = Variables(("SITE", "a")) },
        Moved("conditions inside a section", """
            global
            .if 0
             stats socket 127.0.0.1:9999
             bogus
            .endif
            .if
             bogus
            .endif
            .if 1
             maxconn 100
            .endif
            frontend a
            .if streq("$LIST",two)
             bind 127.0.0.1:80
            .elif 1
             bind 127.0.0.1:81
            .else
             bind 127.0.0.1:82
            .endif
            .if version_before(2.0)
             bind 127.0.0.1:83
            .endif

            """, "127.0.0.1:80 21000") with
        { Environment = Variables(("LIST", "two")) },
        Moved("messages in branches not taken", """
            .if 0
            .alert "never"
            .elif 1
            .diag "only with -dD"
            .notice "taken"
            .else
            .warning "never"
            .endif
            listen a
             bind 127.0.0.1:80

            """, "127.0.0.1:80 21000"),
        Moved("conditions on a variable that the file sets", "global\n setenv A yes\n.if streq(\"$A\",yes)\nlisten a\n bind 127.0.0.1:80\n.else\nlisten a\n bind 127.0.0.1:81\n.endif\n",
            "127.0.0.1:80 21000"),
        Moved("a section whose head is not taken", """
            frontend a
             bind 127.0.0.1:80
            .if 0
            backend b
            .endif
             bind 127.0.0.1:81

            """, "127.0.0.1:80 21000", "127.0.0.1:81 21001"),

        Moved("carriage returns", "defaults\r\n mode http\r\nlisten a\r\n bind 127.0.0.1:80 \r\n bind 127.0.0.1:81\r\n http-request return status 200\r\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("carriage returns here and there", "listen a\r\n bind 127.0.0.1:80\n\r\n\t\r\n bind 127.0.0.1:81 name x\r\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("no line end at the end", "listen a\n bind 127.0.0.1:80", "127.0.0.1:80 21000") with
        { NotForHaproxy = "from 2.3 it wants a line end" },
        Moved("tabs and other blanks", "\tlisten\ta\t\n\f\t bind\t\t127.0.0.1:80\t name\tx\v\n\n \n\t\n", "127.0.0.1:80 21000"),
        Moved("sections without indentation", "defaults\nmode http\nlisten a\nbind 127.0.0.1:80\nhttp-request return status 200\nbackend b\nserver s 127.0.0.1:81\n", "127.0.0.1:80 21000"),
        Moved("eight-bit bytes", "# \xe4\xf6\xfc \xc3\xa4\nlisten a\n mode http\n bind 127.0.0.1:80\n http-request return status 200 hdr x \"\xff\xfe\xc3\xa4\"\n", "127.0.0.1:80 21000"),
        Moved("very long lines", $"listen a\n mode http\n bind 127.0.0.1:80 # {new string('x', 70_000)}\n http-request set-header x \"{new string('y', 9_000)}\"\n http-request return status 200\n", "127.0.0.1:80 21000"),
        Moved("sixty-four words", $"listen a\n mode http\n bind 127.0.0.1:80\n acl many path {string.Join(' ', Enumerable.Range(1, 61).Select(n => $"/{n}"))}\n http-request return status 200\n", "127.0.0.1:80 21000"),
        Moved("names that look like keywords", """
            frontend bind
             mode http
             bind 127.0.0.1:80 name bind
             acl bind path /bind
             use_backend listen if bind
             default_backend global
            backend listen
             mode http
             server bind 127.0.0.1:81
            backend global
             mode http
             server peer 127.0.0.1:82

            """, "127.0.0.1:80 21000"),
        Moved("a byte of zero", "listen a\n bind 127.0.0.1:80\n bind\0 127.0.0.1:81\n", "127.0.0.1:80 21000") with { NotForHaproxy = "it refuses it" },
    ];
}
