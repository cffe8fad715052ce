namespace FlipController.Core;

/// <summary>
/// A path of the file system at which clients connect. It is a symbolic link to the socket of the generation that has the NEW
/// connections: connect(2) follows it, so whoever has replaced the link has moved them.
/// </summary>
/// <param name="Path">As the user's configuration binds it.</param>
/// <param name="Socket">Where one generation listens for it, in the same directory: PATH.gNNNNN.</param>
public sealed record UnixFront(string Path, string Socket);
