using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;

namespace FlipController.Linux;

/// <summary>
/// Standard output or error as it was given, shared with a command that has it, too: .NET's console would first set up the terminal for
/// itself (ConsolePal.Unix.cs, EnsureConsoleInitialized), and a FileStream writes over what others wrote into the same file.
/// Nobody who reads any more is no error.
/// </summary>
public sealed unsafe class InheritedOutput : Stream
{
    private readonly int _fd;

    private InheritedOutput(int fd) => _fd = fd;

    public static InheritedOutput Standard { get; } = new(1);

    public static InheritedOutput Error { get; } = new(2);

    public override bool CanRead => false;
    public override bool CanSeek => false;
    public override bool CanWrite => true;
    public override long Length => throw new NotSupportedException();
    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override void Write(ReadOnlySpan<byte> buffer)
    {
        fixed (byte* bytes = buffer)
        {
            for (int written = 0; written < buffer.Length;)
            {
                nint count = Libc.Write(_fd, bytes + written, (nuint)(buffer.Length - written));
                if (count < 0 && Marshal.GetLastPInvokeError() is not (Errno.Interrupted or Errno.Again)) return;
                written += (int)Math.Max(0, count);
            }
        }
    }

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    public override void Flush() { }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();
}
