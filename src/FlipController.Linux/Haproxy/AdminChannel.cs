namespace FlipController.Linux.Haproxy;

/// <summary>
/// How a generation's HAProxy is asked: through its stats socket, or, once it stops, through a session opened before. Either does both.
/// </summary>
public sealed class AdminChannel
{
    private readonly Func<string, LineVisitor, CancellationToken, Task> _lines;
    private readonly Func<IReadOnlyList<string>, CancellationToken, Task<string[]>> _answers;

    private readonly Func<CancellationToken, Task<HaproxyInfo>> _info;

    public AdminChannel(AdminSocket socket) => (_lines, _answers, _info) = (socket.LinesAsync, socket.AnswersAsync, socket.ShowInfoAsync);

    public AdminChannel(AdminSession session) => (_lines, _answers, _info) = (session.LinesAsync, session.AnswersAsync, session.ShowInfoAsync);

    /// <inheritdoc cref="AdminSocket.ShowInfoAsync"/>
    public Task<HaproxyInfo> ShowInfoAsync(CancellationToken stop) => _info(stop);

    /// <inheritdoc cref="AdminSocket.LinesAsync"/>
    public Task LinesAsync(string command, LineVisitor visit, CancellationToken stop) => _lines(command, visit, stop);

    /// <inheritdoc cref="AdminSession.AnswersAsync"/>
    public Task<string[]> AnswersAsync(IReadOnlyList<string> commands, CancellationToken stop) => _answers(commands, stop);
}
