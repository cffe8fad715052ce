using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Core.Machine;
using Xunit;

namespace FlipController.Core.Tests;

public sealed class RestraintTests
{
    private static readonly DateTimeOffset s_now = DateTimeOffset.UnixEpoch;
    private static readonly FlipRestraint s_backup = new("instance VI_1 of keepalived is BACKUP here, and role is master-only");

    private static PairState Steady(FlipRestraint? restraint) => PairState.Initial("edge") with
    {
        LastNumber = 1, LastFlipId = 1, LastGood = 1, Phase = new Steady(), Restraint = restraint,
        Active = new Generation(1, Slot.Blue, 1001, 1, "boot", "sha-1", "sha-1", s_now, [], 1, "2.6"),
    };

    private static FlipAsked Changed(string sha) => new(s_now, new FlipWish(FlipTrigger.Files, null, false, sha, null, []));

    private static PairState After(PairState s, PairEvent e) => Assert.IsType<Next>(PairMachine.Decide(s, e)).State;

    [Fact]
    public void A_changed_file_waits_visibly_and_goes_when_it_may()
    {
        PairState s = After(Steady(s_backup), Changed("sha-2"));
        Assert.IsType<Steady>(s.Phase);
        Assert.Equal(s_backup.Why, s.HeldBack);
        s = After(s, Changed("sha-3"));
        s = After(s, new RestraintChanged(s_now, null));
        Assert.Equal("sha-3", Assert.IsType<Preparing>(s.Phase).Run.Wish.ContentSha256);
        Assert.Null(s.Pending);
    }

    [Fact]
    public void One_that_is_taken_back_on_disk_waits_no_more() => Assert.Null(After(After(Steady(s_backup), Changed("sha-2")), Changed("sha-1")).Pending);

    [Fact]
    public void An_operators_word_goes_at_once()
    {
        PairState s = After(Steady(s_backup), Changed("sha-2"));
        Assert.IsType<Preparing>(After(s, new FlipAsked(s_now, new FlipWish(FlipTrigger.Operator, null, false, null, null, [1]))).Phase);
    }

    [Fact]
    public void What_is_proven_elsewhere_goes_and_nothing_else()
    {
        PairState s = After(Steady(new FlipRestraint("MASTER")), Changed("sha-2"));
        Assert.IsType<Steady>(After(s, new RestraintChanged(s_now, new FlipRestraint("MASTER", "sha-old"))).Phase);
        Assert.IsType<Preparing>(After(s, new RestraintChanged(s_now, new FlipRestraint("MASTER", "sha-2"))).Phase);
    }

    [Fact]
    public void A_death_is_answered_with_what_served_and_the_change_goes_on_waiting()
    {
        PairState s = After(After(Steady(s_backup), Changed("sha-2")), new GenerationDied(s_now, 1, "died"));
        Assert.Equal(1, Assert.IsType<Preparing>(s.Phase).Run.Wish.FromGeneration);
        Assert.Equal("sha-2", s.Pending?.ContentSha256);
    }

    [Fact]
    public void Where_nothing_serves_a_changed_file_is_tried_whatever_keepalived_says() =>
        Assert.IsType<Preparing>(After(Steady(s_backup) with { Active = null, Phase = new Faulted() }, Changed("sha-2")).Phase);

    // ---- what keepalived's states mean

    [Theory]
    [InlineData(KeepalivedRole.Always, null, true)]
    [InlineData(KeepalivedRole.Always, VrrpState.Backup, true)]
    [InlineData(KeepalivedRole.MasterOnly, VrrpState.Master, true)]
    [InlineData(KeepalivedRole.MasterOnly, VrrpState.Backup, false)]
    [InlineData(KeepalivedRole.MasterOnly, VrrpState.Stop, false)]
    [InlineData(KeepalivedRole.MasterOnly, null, false)]
    [InlineData(KeepalivedRole.BackupFirst, VrrpState.Backup, true)]
    [InlineData(KeepalivedRole.BackupFirst, VrrpState.Stop, true)]
    [InlineData(KeepalivedRole.BackupFirst, VrrpState.Master, false)]
    [InlineData(KeepalivedRole.BackupFirst, null, false)]
    public void A_role_says_where_a_changed_file_flips_by_itself(KeepalivedRole role, VrrpState? state, bool may) =>
        Assert.Equal(may, RoleRule.Of(new PairKeepalivedOptions { Instance = "VI_1", Role = role }, state, false, "sha", null) is null);

    [Theory]
    [InlineData(VrrpState.Fault, TroubleRule.Freeze, TroubleRule.Ignore, false, false)]
    [InlineData(VrrpState.Fault, TroubleRule.Ignore, TroubleRule.Freeze, false, true)]
    [InlineData(VrrpState.Fault, TroubleRule.Freeze, TroubleRule.Ignore, true, true)]
    [InlineData(VrrpState.Stop, TroubleRule.Freeze, TroubleRule.Ignore, false, true)]
    [InlineData(VrrpState.Stop, TroubleRule.Ignore, TroubleRule.Freeze, false, false)]
    [InlineData(VrrpState.Deleted, TroubleRule.Ignore, TroubleRule.Freeze, true, false)]
    public void Trouble_freezes_or_not_and_a_fault_of_our_own_making_never_does(
        VrrpState state, TroubleRule fault, TroubleRule stop, bool ours, bool may) => Assert.Equal(may, RoleRule.Of(
            new PairKeepalivedOptions { Instance = "VI_1", Fault = fault, Stop = stop }, state, ours, null, null) is null);

    [Fact]
    public void On_the_master_the_peers_proof_frees_the_files_it_is_about()
    {
        var options = new PairKeepalivedOptions { Group = "G", Role = KeepalivedRole.BackupFirst };
        Assert.Equal("sha", RoleRule.Of(options, VrrpState.Master, false, "sha", new PeerProof(true, "has proven them"))!.Except);
        FlipRestraint no = RoleRule.Of(options, VrrpState.Master, false, "sha", new PeerProof(false, "is not reachable: refused"))!;
        Assert.Null(no.Except);
        Assert.Equal("group G of keepalived is MASTER here, and role is backup-first: the peer is not reachable: refused", no.Why);
    }

    // ---- what keepalived says

    [Theory]
    [InlineData("INSTANCE \"VI_1\" MASTER 100", VrrpKind.Instance, "VI_1", VrrpState.Master, 100)]
    [InlineData("GROUP \"my group\" FAULT 0", VrrpKind.Group, "my group", VrrpState.Fault, null)]
    [InlineData("INSTANCE \"VI_1\" STOP 255", VrrpKind.Instance, "VI_1", VrrpState.Stop, 255)]
    [InlineData("INSTANCE \"VI_1\" MASTER_RX_LOWER_PRI 100", VrrpKind.Instance, "VI_1", VrrpState.Master, 100)]
    [InlineData("INSTANCE \"VI_1\" BACKUP_PRIORITY 50", VrrpKind.Instance, "VI_1", VrrpState.Backup, 50)]
    [InlineData("INSTANCE \"VI_1\" DELETED", VrrpKind.Instance, "VI_1", VrrpState.Deleted, null)]
    public void A_line_is_read(string line, VrrpKind kind, string name, VrrpState state, int? priority)
    {
        Assert.Null(VrrpEvent.ReadLine(line, out VrrpEvent? read));
        Assert.Equal(new VrrpEvent(kind, name, state, priority), read);
    }

    [Theory]
    [InlineData("")]
    [InlineData("INSTANCE VI_1 MASTER 100")]
    [InlineData("INSTANCE \"\" MASTER 100")]
    [InlineData("INSTANCE \"VI_1\" master 100")]
    [InlineData("INSTANCE \"VI_1\" MASTER x")]
    [InlineData("INSTANCE \"VI_1\" MASTER 256")]
    [InlineData("INSTANCE \"VI_1\" MASTER 100 more")]
    [InlineData("instance \"VI_1\" MASTER 100")]
    [InlineData("\" \"")]
    public void What_is_no_line_says_why(string line)
    {
        Assert.NotNull(VrrpEvent.ReadLine(line, out VrrpEvent? read));
        Assert.Null(read);
    }

    [Fact]
    public void The_same_event_by_two_ways_is_one()
    {
        var first = new VrrpStanding(VrrpKind.Instance, "VI_1", VrrpState.Master, 100, s_now, VrrpSource.Fifo);
        VrrpStanding again = first.Heard(new VrrpEvent(VrrpKind.Instance, "VI_1", VrrpState.Master, null), s_now + TimeSpan.FromSeconds(9), VrrpSource.Notify);
        Assert.Equal((s_now, 100, VrrpSource.Notify), (again.Since, again.Priority, again.Source));
    }
}
