using System.CommandLine;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using FlipController.Linux;
using Microsoft.Win32.SafeHandles;
using Spectre.Console;

namespace FlipController.Cli;

/// <summary>Where a verb's words go: colours and live lines for a person at a terminal, plain text for everybody else.</summary>
internal sealed class Terminal
{
    // Without it every apostrophe in a sentence would be a backslash and a number.
    private static readonly JsonSerializerOptions Wire = new(WireJson.Default.Options)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        TypeInfoResolver = JsonTypeInfoResolver.Combine(WireJson.Default, FlipDetailsJson.Default),
    };

    private readonly TextWriter _error;
    private readonly Lazy<(IAnsiConsole Console, int Width)> _console;

    private Terminal(TextWriter output, TextWriter error, bool json)
    {
        Output = output;
        _error = error;
        Json = json;
        // .NET's console sets the terminal up for itself when it is first looked at: not for a verb that leaves it to a command.
        bool person = output is not StreamWriter && ReferenceEquals(output, System.Console.Out) && !System.Console.IsOutputRedirected;
        bool plain = !person || Environment.GetEnvironmentVariable("NO_COLOR") is { Length: > 0 }
            || Environment.GetEnvironmentVariable("TERM") == "dumb";
        IsLive = !plain && !json;
        _console = new Lazy<(IAnsiConsole, int)>(() =>
        {
            IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
            {
                Ansi = plain ? AnsiSupport.No : AnsiSupport.Detect,
                ColorSystem = plain ? ColorSystemSupport.NoColors : ColorSystemSupport.Detect,
                Interactive = plain ? InteractionSupport.No : InteractionSupport.Detect,
                Out = new AnsiConsoleOutput(output),
            });
            int width = console.Profile.Width;
            // Lines are never broken here: nobody wants them so in a log, and a terminal does it better than a table cell.
            console.Profile.Width = 10_000;
            return (console, width);
        });
    }

    public bool Json { get; }

    /// <summary>A person looks on and the terminal can redraw.</summary>
    public bool IsLive { get; }

    /// <summary>Somebody can be asked.</summary>
    public static bool CanAsk => !System.Console.IsInputRedirected && !System.Console.IsOutputRedirected;

    public TextWriter Output { get; }

    public IAnsiConsole Console => _console.Value.Console;

    /// <summary>For what is drawn over and over, which must know the true width.</summary>
    public IAnsiConsole Live
    {
        get
        {
            Console.Profile.Width = _console.Value.Width;
            return Console;
        }
    }

    /// <summary>Columns and rows as they are now: a window is made smaller while it is looked at.</summary>
    public (int Columns, int Rows) Size
    {
        get
        {
            try
            {
                (int columns, int rows) = (System.Console.WindowWidth, System.Console.WindowHeight);
                return (columns > 0 ? columns : 80, rows > 0 ? rows : 24);
            }
            catch (IOException)
            {
                return (80, 24);
            }
        }
    }

    /// <summary>
    /// Whether more than ASCII can be shown: what the locale says, locale(7). Without one it is C, which has nothing more.
    /// </summary>
    public static bool IsUtf8 { get; } = new[] { "LC_ALL", "LC_CTYPE", "LANG" }.Select(Environment.GetEnvironmentVariable)
        .FirstOrDefault(v => v is { Length: > 0 }) is { } locale
        && locale.Replace("-", "", StringComparison.Ordinal).Contains("utf8", StringComparison.OrdinalIgnoreCase);

    /// <summary>
    /// Standard output that fails when nobody reads it any more. .NET's own console stream keeps that to itself (ConsolePal.Unix.cs,
    /// Write, EPIPE), and `flipctl watch | head -1` would never end.
    /// </summary>
    public static TextWriter StandardOutput()
    {
        if (!System.Console.IsOutputRedirected) return System.Console.Out;
        var stream = new FileStream(new SafeFileHandle(1, ownsHandle: false), FileAccess.Write, bufferSize: 0);
        // In a regular file a stream writes at a position of its own: what stderr wrote to the same file would be lost.
        return stream.CanSeek ? System.Console.Out : new StreamWriter(stream, new UTF8Encoding(false)) { AutoFlush = true };
    }

    /// <summary>1 or 2 as a command has it, too.</summary>
    public static TextWriter Shared(InheritedOutput output) => new StreamWriter(output, new UTF8Encoding(false)) { AutoFlush = true };

    public static Terminal For(ParseResult parsed) =>
        new(parsed.InvocationConfiguration.Output, parsed.InvocationConfiguration.Error, parsed.GetValue(GlobalOptions.Json));

    public void Line(string text) => Output.WriteLine(text);

    public void Note(string text) => _error.WriteLine(text);

    /// <summary>The wire record as one line of JSON; true when that is what was asked for.</summary>
    public bool Printed<T>(T record)
    {
        if (Json) Output.WriteLine(Serialized(record));
        return Json;
    }

    public int Fail(VerbFailure failure)
    {
        _error.WriteLine(Json ? Serialized(failure.Answer) : $"flipctl: {failure.Message}");
        return (int)failure.Code;
    }

    /// <summary>The wire record as one line of JSON.</summary>
    public static string Serialized<T>(T record) => JsonSerializer.Serialize(record, (JsonTypeInfo<T>)Wire.GetTypeInfo(typeof(T)));
}
