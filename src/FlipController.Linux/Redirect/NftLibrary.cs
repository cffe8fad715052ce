using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// libnftables in this process: /usr/include/nftables/libnftables.h, libnftables(3). What the nft program does for a text, without
/// starting it. A context has one netlink socket, which belongs to the network namespace of the thread that opened it. It is not
/// thread-safe: whoever owns it sees to it that one thread at a time is inside.
/// </summary>
internal sealed unsafe partial class NftLibrary : IDisposable
{
    private const uint DefaultContext = 0; // NFT_CTX_DEFAULT
    private const uint OutputStateless = 1 << 2; // NFT_CTX_OUTPUT_STATELESS
    private const uint OutputHandles = 1 << 3; // NFT_CTX_OUTPUT_HANDLE
    private const uint OutputJson = 1 << 4; // NFT_CTX_OUTPUT_JSON
    private const uint OutputNumeric = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10; // NFT_CTX_OUTPUT_NUMERIC_ALL

    /// <summary>What the kernel or the library may say when another program committed at the same moment: once more is right.</summary>
    private const int Attempts = 5;

    private const string Separator = "; ";
    private const int LongestSelect = 1000; // FD_SETSIZE is 1024

    private nint _context;

    private NftLibrary(nint context) => _context = context;

    internal static NftLibrary Open()
    {
        // nft_ctx_new() calls exit() when it gets no netlink socket (netlink_init_error in nftables' src/netlink.c): find out before
        // it does.
        using (NetlinkSocket socket = new(NetlinkProtocol.Netfilter))
        {
            RefuseAbove(socket.Fd);
        }
        nint context;
        HashSet<int> before = [.. Libc.OpenDescriptors()];
        try
        {
            context = ContextNew(DefaultContext);
        }
        catch (DllNotFoundException e)
        {
            throw new FlipException("cannot load libnftables.so.1: it is not installed. Install libnftables1 (Debian) or nftables-libs", e);
        }
        if (context == 0) throw new KernelException("make an nftables context", Errno.NoBuffers);
        // Its socket is opened without SOCK_CLOEXEC (nft_mnl_socket_open in nftables' src/mnl.c): every HAProxy and hook would
        // inherit it.
        int[] opened = [.. Libc.OpenDescriptors().Where(fd => !before.Contains(fd))];
        foreach (int fd in opened) Libc.SetCloseOnExec(fd);
        NftLibrary library = new(context);
        try
        {
            // Others may have taken the lower ones meanwhile.
            RefuseAbove(opened.DefaultIfEmpty().Max());
        }
        catch (FlipException)
        {
            library.Dispose();
            throw;
        }
        if (BufferOutput(context) == 0 && BufferError(context) == 0) return library;
        library.Dispose();
        throw new KernelException("buffer libnftables' output", Errno.NoBuffers);
    }

    public void Dispose()
    {
        if (_context != 0) ContextFree(_context);
        _context = 0;
    }

    /// <summary>It waits with select(2), which ends the process at descriptor 1024 (mnl_batch_talk in nftables' src/mnl.c).</summary>
    private static void RefuseAbove(int fd)
    {
        if (fd > LongestSelect)
            throw new FlipException($"cannot use libnftables: it takes no descriptor above {LongestSelect}, and this process has so many open that the next is {fd}; "
                + "nothing was changed; give it fewer (of --port, or of inherited ones)");
    }

    /// <summary>Runs a text of nft commands as one transaction.</summary>
    internal void Run(string operation, string commands)
    {
        int errno = RunText(commands);
        if (errno != 0) throw Failure(operation, errno);
    }

    /// <summary>A command's JSON; null when what it asks for does not exist.</summary>
    internal JsonDocument? Query(string operation, string command) =>
        Output(operation, command, OutputJson | OutputNumeric) is { } output ? JsonDocument.Parse(output) : null;

    /// <summary>What a command prints for people, with handles and without counts; null when what it asks for does not exist.</summary>
    internal string? List(string operation, string command) =>
        Output(operation, command, OutputStateless | OutputHandles) is { } output ? Encoding.UTF8.GetString(output) : null;

    private byte[]? Output(string operation, string command, uint flags)
    {
        int errno;
        OutputSetFlags(_context, flags);
        try
        {
            errno = RunText(command);
            nint output = GetOutput(_context);
            if (errno == 0) return MemoryMarshal.CreateReadOnlySpanFromNullTerminated((byte*)output).ToArray();
        }
        finally
        {
            OutputSetFlags(_context, 0);
        }
        KernelException failure = Failure(operation, errno);
        return failure.Errno == Errno.NoEntry ? null : throw failure;
    }

    /// <summary>0, or an errno above 0; then <see cref="Failure"/> has the words.</summary>
    private int RunText(string commands)
    {
        // libnftables does not look: a null context is a crash.
        ObjectDisposedException.ThrowIf(_context == 0, this);
        // One line, however many commands: of a buffer with several, libnftables 1.0.6 quotes the first one beside any error.
        byte[] text = Encoding.UTF8.GetBytes(commands.TrimEnd('\n').Replace("\n", Separator, StringComparison.Ordinal) + '\0');
        fixed (byte* buffer = text)
        {
            for (int attempt = 1; ; attempt++)
            {
                _ = GetError(_context); // begins it anew: what nobody asked about is not the next failure's reason
                if (RunBuffer(_context, buffer) == 0) return 0;
                int errno = Marshal.GetLastPInvokeError();
                // After a plain mistake errno may be a leftover EAGAIN of the library's own reads: the few more attempts then
                // change nothing.
                bool transient = errno is Errno.Again or Errno.Interrupted or Errno.Busy or Errno.Restart;
                if (!transient || attempt == Attempts) return errno > 0 ? errno : Errno.Invalid;
            }
        }
    }

    /// <summary>What the library wrote in the last run, as an exception: the first complaint and the line it is about.</summary>
    /// <param name="errno">What the run returned.</param>
    private KernelException Failure(string operation, int errno)
    {
        string[] lines = (Marshal.PtrToStringUTF8(GetError(_context)) ?? "").Split('\n');
        string complaint = lines[0].StartsWith("Error: ", StringComparison.Ordinal) ? lines[0]["Error: ".Length..] : lines[0];
        if (complaint.Length == 0) return new KernelException(operation, errno);

        // Only what the kernel said has a true errno; the library's own complaints leave whatever was there.
        if (!complaint.StartsWith("Could not process rule", StringComparison.Ordinal))
            errno = complaint.StartsWith("No such file or directory", StringComparison.Ordinal) ? Errno.NoEntry
                // "cache initialization failed: Operation not permitted": without CAP_NET_ADMIN it cannot even list.
                : complaint.EndsWith("Operation not permitted", StringComparison.Ordinal) ? Errno.Perm : Errno.Invalid;
        return new KernelException(operation, errno, lines.Length > 2 ? $"{complaint}, at \"{Pointed(lines[1], lines[2])}\"" : complaint);
    }

    /// <summary>The one command of the line that the carets in the next line stand under.</summary>
    private static string Pointed(string line, string carets)
    {
        int column = Math.Clamp(carets.IndexOf('^', StringComparison.Ordinal), 0, line.Length);
        int start = line.LastIndexOf(Separator, Math.Max(column - 1, 0), StringComparison.Ordinal);
        int end = line.IndexOf(Separator, column, StringComparison.Ordinal);
        return line[(start < 0 ? 0 : start + Separator.Length)..(end < 0 ? line.Length : end)].Trim();
    }

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_new")]
    private static partial nint ContextNew(uint flags);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_free")]
    private static partial void ContextFree(nint context);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_output_set_flags")]
    private static partial uint OutputSetFlags(nint context, uint flags);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_buffer_output")]
    private static partial int BufferOutput(nint context);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_buffer_error")]
    private static partial int BufferError(nint context);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_get_output_buffer")]
    private static partial nint GetOutput(nint context);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_ctx_get_error_buffer")]
    private static partial nint GetError(nint context);

    [LibraryImport("libnftables.so.1", EntryPoint = "nft_run_cmd_from_buffer", SetLastError = true)]
    private static partial int RunBuffer(nint context, byte* buffer);
}
