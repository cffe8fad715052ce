namespace FlipController.Linux.State;

/// <summary>A file of ours that cannot be read: a power cut or a full disk may leave one. It is kept for whoever wants to know.</summary>
internal static class BrokenFile
{
    /// <returns>What was found and done, in a sentence without its end.</returns>
    internal static string SetAside(string path, string why)
    {
        string aside = $"{path}.broken";
        try
        {
            File.Move(path, aside, overwrite: true);
            return $"cannot read {path} ({why.TrimEnd('.')}); it is kept as {aside}";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return $"cannot read {path} ({why.TrimEnd('.')}), nor keep it as {aside} ({e.Message})";
        }
    }
}
