namespace FlipController.Linux.Haproxy;

/// <summary>The <c>global</c> section: what one process alone may have, or two would fight over.</summary>
internal sealed class GlobalCopy(SlotCopy copy, ListenerCopy listeners)
{
    public void Copy(ConfigurationSection section)
    {
        foreach (PlacedLine placed in section.Lines) Copy(section, placed);
    }

    private void Copy(ConfigurationSection section, PlacedLine placed)
    {
        ConfigurationLine line = placed.Line;
        switch (line[0])
        {
            case "stats" when line[1] == "socket": listeners.StatsSocket(section, placed); break;
            case "pidfile":
                // -p is passed, beside which HAProxy alerts of a second one (src/cfgparse-global.c).
                copy.ChangeOf(placed).Drop = true;
                break;
            case "localpeer" when line[1] != "":
                // -L is passed, which makes HAProxy warn of such a line (src/cfgparse-global.c).
                if (line.Words[1].IsUnknown)
                    copy.Refuse(placed, $"localpeer \"{line[1]}\" holds a variable whose value is not known here; write the value itself");
                copy.ChangeOf(placed).Drop = true;
                break;
            case "master-worker":
                // A process of its own between us and HAProxy would hide how HAProxy fares; -D is passed.
                copy.ChangeOf(placed).Drop = true;
                copy.Note(placed, "master-worker is left out: FlipController starts and watches HAProxy itself");
                break;
            case "nbproc" when line[1] != "1":
                copy.Refuse(placed, "nbproc makes several processes of one configuration; use nbthread");
                break;
            case "noreuseport" when copy.OnFronts:
                copy.Refuse(placed, "noreuseport keeps two generations from listening on the same address; leave it out, or use redirect.method nftables");
                break;
            case "tune.listener.default-shards" when copy.OnFronts:
                copy.ChangeOf(placed).Drop = true;
                break;
            case "grace":
                // The copy would go on listening on private ports that the next generation of its slot already uses.
                copy.ChangeOf(placed).Drop = true;
                copy.Note(placed, "grace is left out: a stopped generation does not go on listening, and has no need to: "
                    + "NEW connections go to the other one already");
                break;
            case "hard-stop-after":
                copy.Note(placed, $"hard-stop-after {line[1]} ends a retired generation and its connections after that time, "
                    + "even if drain.deadline is later");
                break;
            case "tune.quic.socket-owner" when line[1] == "listener":
            case "tune.quic.fe.sock-per-conn" when line[1] is "off" or "default-off" or "force-off":
                copy.Note(placed, "with one socket for all QUIC connections a soft stop cuts those that are left");
                break;
            case "shm-stats-file" when line[1] != "":
                // Both would count in the same memory, and their error rates could not be told apart.
                copy.ChangeOf(placed).Replace(line.Words[1], copy.Under("shm-stats"));
                break;
        }
    }
}
