using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy;

/// <summary>What is projected as it stands and yet means something else when two processes have it.</summary>
internal static class ProjectionNotes
{
    public static void Collect(SlotCopy copy, ImmutableArray<ConfigurationSection> sections)
    {
        bool six = copy.Ports.Services.Any(s => s.Service.CoversIPv6);
        foreach (ConfigurationSection section in sections)
        {
            if (section.Kind == "mailers")
                copy.Note(section.Header, $"{section.Name} gets mail from both processes while both check the servers");
            foreach (PlacedLine placed in section.Lines)
            {
                string text = placed.Line.Text;
                // HAProxy reads the original destination of a redirected connection for IPv4 only (src/sock_inet.c, sock_inet_get_dst).
                if (six && (text.Contains("dst_port", StringComparison.Ordinal) || text.Contains("%fp", StringComparison.Ordinal)))
                    copy.Note(placed, "on IPv6 the destination port is the private one, not the one the client connected to");
            }
        }
    }
}
