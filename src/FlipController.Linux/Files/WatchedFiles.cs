using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Files;

/// <summary>The files a pair depends on, read only when nobody is in the middle of writing them.</summary>
public sealed partial class WatchedFiles(ServerOptions options)
{
    private const long LargestConfiguration = 64L << 20;
    private const int DeepestDirectory = 8;

    /// <summary>
    /// Every file, the configuration's first, then what is watched beside them, directories walked; symbolic links followed.
    /// </summary>
    public ImmutableArray<string> Paths()
    {
        var paths = ImmutableArray.CreateBuilder<string>();
        paths.AddRange(options.Config.SelectMany(Expanded));
        paths.AddRange(Environment());
        foreach (string path in options.AlsoWatch) paths.AddRange(Beside(path));
        return [.. paths.Distinct(StringComparer.Ordinal)];
    }

    /// <summary>
    /// Reads everything. Throws FlipException while a file is missing, being written, or changes under the reading; a half-written
    /// file is never returned as long as its writer keeps it open.
    /// </summary>
    public Snapshot Read()
    {
        try
        {
            return ReadAll();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A file's own trouble has its sentence already; this is a directory that went away, or may not be listed.
            throw new FlipException($"cannot list the watched files: {e.Message}", e);
        }
    }

    private Snapshot ReadAll()
    {
        string[] configuration = [.. options.Config.SelectMany(Expanded)];
        if (configuration.Length == 0 && !options.Config.IsEmpty)
            throw new FlipException($"cannot read the configuration {string.Join(" ", options.Config)}: no file is there");
        var files = configuration.Select(path => new SnapshotFile(path, ReadWhole(path))).ToImmutableArray();
        using var config = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var content = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (SnapshotFile file in files)
        {
            config.AppendData(file.Content);
            AppendNamed(content, file.Path, file.Content);
        }
        var environment = Environment().Select(path => new SnapshotFile(path, ReadWhole(path))).ToImmutableArray();
        foreach (SnapshotFile file in environment) AppendNamed(content, file.Path, file.Content);
        foreach (string path in options.AlsoWatch.SelectMany(Beside)) AppendNamed(content, path, ReadWhole(path));
        return new Snapshot(files, Hex(config), Hex(content), environment);

        static string Hex(IncrementalHash hash) => Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>
    /// Directories in which an event may mean a change: those of the files and of every symbolic link on the way to them.
    /// </summary>
    public IReadOnlySet<string> Directories()
    {
        var directories = new HashSet<string>(StringComparer.Ordinal);
        foreach (string path in options.Config.Concat(options.AlsoWatch).Concat(options.EnvironmentFiles.Select(f => f.TrimStart('-')))) AddWay(path, 0);
        foreach (string path in Paths()) AddWay(path, 0);
        return directories;

        void AddWay(string path, int depth)
        {
            if (depth > 40) return; // the kernel's own bound on symbolic links, path_resolution(7)
            if (Directory.Exists(path)) directories.Add(path);
            // /etc/haproxy/..data/haproxy.cfg: a link may be any part of the path, and any of them may be swapped.
            for (string? part = path; part is not null; part = Path.GetDirectoryName(part))
            {
                if (new FileInfo(part).LinkTarget is not { } target)
                {
                    if (part == path && Path.GetDirectoryName(part) is { } own && Directory.Exists(own)) directories.Add(own);
                    continue;
                }
                string parent = Path.GetDirectoryName(part)!;
                directories.Add(parent);
                AddWay(Path.GetFullPath(Path.Combine(parent, target)) + path[part.Length..], depth + 1);
            }
        }
    }

    /// <summary>A directory among them means something to HAProxy alone.</summary>
    private IEnumerable<string> Expanded(string path) => options is HaproxyOptions ? Configuration(path) : [path];

    /// <summary>
    /// For -f a directory stands for the *.cfg files in it, names sorted by bytes (HAProxy's management.txt, 3); it looks at the
    /// first ".cfg" of a name, so a.cfg.cfg is none (src/haproxy.c, cfgfiles_expand_directories).
    /// </summary>
    internal static IEnumerable<string> Configuration(string path) => Directory.Exists(path)
        ? Walk(path, 0).Where(f => Path.GetFileName(f) is var name
            && name.IndexOf(".cfg", StringComparison.Ordinal) == name.Length - ".cfg".Length)
        : [path];

    /// <summary>The environment files that must be there, and those that are.</summary>
    private IEnumerable<string> Environment() => options.EnvironmentFiles
        .Where(f => !f.StartsWith('-') || File.Exists(f[1..])).Select(f => f.TrimStart('-'));

    /// <summary>A directory beside the configuration stands for every file in and below it.</summary>
    private static IEnumerable<string> Beside(string path) => Directory.Exists(path) ? Walk(path, DeepestDirectory) : [path];

    /// <summary>Names sorted by bytes; what begins with a dot is an editor's or a mount's own. The depth bounds circles of links.</summary>
    private static IEnumerable<string> Walk(string directory, int depth)
    {
        foreach (string entry in Directory.EnumerateFileSystemEntries(directory).Order(StringComparer.Ordinal))
        {
            if (Path.GetFileName(entry).StartsWith('.')) continue;
            if (!Directory.Exists(entry)) yield return entry;
            else if (depth > 0)
                foreach (string below in Walk(entry, depth - 1)) yield return below;
        }
    }

    private static void AppendNamed(IncrementalHash hash, string path, byte[] content)
    {
        Span<byte> length = stackalloc byte[8];
        byte[] name = Encoding.UTF8.GetBytes(path);
        BinaryPrimitives.WriteInt64LittleEndian(length, name.Length);
        hash.AppendData(length);
        hash.AppendData(name);
        BinaryPrimitives.WriteInt64LittleEndian(length, content.Length);
        hash.AppendData(length);
        hash.AppendData(content);
    }

    private static byte[] ReadWhole(string path)
    {
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 0);
            if (file.Length > LargestConfiguration)
                throw new FlipException($"cannot read {path}: it has {file.Length} bytes, "
                    + $"more than the {LargestConfiguration} that are read");
            if (IsBeingWritten(file))
                throw new FlipException($"cannot read {path}: another process has it open for writing");
            DateTime before = File.GetLastWriteTimeUtc(file.SafeFileHandle);
            byte[] content = new byte[file.Length];
            int read = file.ReadAtLeast(content, content.Length, throwOnEndOfStream: false);
            if (read != content.Length || file.Length != read || File.GetLastWriteTimeUtc(file.SafeFileHandle) != before)
                throw new FlipException($"cannot read {path}: it changes while it is read");
            return content;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot read {path}: {e.Message}", e);
        }
    }

    /// <summary>
    /// The kernel grants a read lease only while nobody has the file open for writing: fcntl(2), F_SETLEASE. Where a file system or
    /// missing rights refuse leases for another reason, the settle time alone decides. A writer that opens the file while the lease is
    /// held makes the kernel send its holder a signal: SIGIO by default, which ends a process; so it is one that nobody minds.
    /// </summary>
    private static bool IsBeingWritten(FileStream file)
    {
        const int setSignal = 10, urgent = 23; // F_SETSIG: asm-generic/fcntl.h; SIGURG: signal(7), ignored by default
        const int setLease = 1024, readLease = 0, unlock = 2, again = 11; // F_SETLEASE, F_RDLCK, F_UNLCK: fcntl.h; EAGAIN: errno-base.h
        int handle = file.SafeFileHandle.DangerousGetHandle().ToInt32();
        if (Fcntl(handle, setSignal, urgent) != 0) return false;
        if (Fcntl(handle, setLease, readLease) == 0)
        {
            _ = Fcntl(handle, setLease, unlock);
            return false;
        }
        return Marshal.GetLastPInvokeError() == again;
    }

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int Fcntl(int handle, int command, int argument);
}
