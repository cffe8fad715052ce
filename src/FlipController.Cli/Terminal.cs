using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using Spectre.Console;

namespace FlipController.Cli;

/// <summary>Where a verb's words go: colours and live lines for a person at a terminal, plain text for everybody else.</summary>
internal sealed class Terminal
{
    // Without it every apostrophe in a sentence would be a backslash and a number.
    private static readonly WireJson Wire = new(new JsonSerializerOptions(WireJson.Default.Options)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });

    private readonly TextWriter _error;

    private Terminal(TextWriter output, TextWriter error, bool json)
    {
        Output = output;
        _error = error;
        Json = json;
        bool person = ReferenceEquals(output, System.Console.Out) && !System.Console.IsOutputRedirected;
        bool plain = !person || Environment.GetEnvironmentVariable("NO_COLOR") is { Length: > 0 } || Environment.GetEnvironmentVariable("TERM") == "dumb";
        IsLive = !plain && !json;
        Console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Ansi = plain ? AnsiSupport.No : AnsiSupport.Detect,
            ColorSystem = plain ? ColorSystemSupport.NoColors : ColorSystemSupport.Detect,
            Interactive = plain ? InteractionSupport.No : InteractionSupport.Detect,
            Out = new AnsiConsoleOutput(output),
        });
        // Nobody wants a log file wrapped at 80 columns.
        if (!person) Console.Profile.Width = 10_000;
    }

    public bool Json { get; }

    /// <summary>A person looks on and the terminal can redraw.</summary>
    public bool IsLive { get; }

    /// <summary>Somebody can be asked.</summary>
    public static bool CanAsk => !System.Console.IsInputRedirected && !System.Console.IsOutputRedirected;

    public TextWriter Output { get; }

    public IAnsiConsole Console { get; }

    public static Terminal For(ParseResult parsed) =>
        new(parsed.InvocationConfiguration.Output, parsed.InvocationConfiguration.Error, parsed.GetValue(GlobalOptions.Json));

    public void Line(string text) => Output.WriteLine(text);

    public void Note(string text) => _error.WriteLine(text);

    /// <summary>The wire record as one line of JSON; true when that is what was asked for.</summary>
    public bool Printed<T>(T record)
    {
        if (Json) Output.WriteLine(Text(record));
        return Json;
    }

    public int Fail(VerbFailure failure)
    {
        _error.WriteLine(Json ? Text(failure.Answer) : $"flipctl: {failure.Message}");
        return (int)failure.Code;
    }

    private static string Text<T>(T record) => JsonSerializer.Serialize(record, (JsonTypeInfo<T>)Wire.GetTypeInfo(typeof(T))!);
}
