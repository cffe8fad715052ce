using System.CommandLine;

namespace FlipController.Cli;

internal static class CompletionVerb
{
    // Each asks flipctl itself what may come next ([suggest:POSITION] "LINE"), so that a script never knows less than the program.
    private const string Bash = """
        # bash completion for flipctl: eval "$(flipctl completion bash)"
        _flipctl() {
            local line=${COMP_LINE:0:COMP_POINT} IFS=$'\n'
            local words
            words=$(flipctl "[suggest:${#line}]" "$line" 2>/dev/null)
            COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
        }
        complete -o default -F _flipctl flipctl
        """;

    private const string Zsh = """
        #compdef flipctl
        # zsh completion for flipctl: eval "$(flipctl completion zsh)"
        _flipctl() {
            local line="${BUFFER[1,CURSOR]}"
            local -a words
            words=("${(@f)$(flipctl "[suggest:${#line}]" "$line" 2>/dev/null)}")
            compadd -- "${words[@]}" || _files
        }
        compdef _flipctl flipctl
        """;

    private const string Fish = """
        # fish completion for flipctl: flipctl completion fish | source
        function __flipctl_complete
            set -l line (commandline -cp)
            flipctl "[suggest:"(string length -- "$line")"]" "$line" 2>/dev/null
        end
        complete -c flipctl -a '(__flipctl_complete)'
        """;

    public static Verb Create()
    {
        Argument<string> shell = new Argument<string>("SHELL") { Description = "bash, zsh or fish" }
            .AcceptOnlyFromAmong("bash", "zsh", "fish");
        return new Verb("completion", "Prints a script that completes flipctl's verbs, options and pair names in a shell",
            ["eval \"$(flipctl completion bash)\"", "flipctl completion bash > /etc/bash_completion.d/flipctl",
                "flipctl completion fish > ~/.config/fish/completions/flipctl.fish"],
            (call, _) =>
            {
                call.Terminal.Line(call.Value(shell) switch { "zsh" => Zsh, "fish" => Fish, _ => Bash });
                return Task.FromResult(ExitCode.Done);
            }) { shell };
    }
}
