namespace FlipController.Daemon.Handover;

/// <summary>Says to keepalived whether this node should have the VIPs, as far as a handover is concerned.</summary>
internal interface INodeLowering
{
    void Lower();
    void Raise();

    /// <summary>Why it is lowered for another reason; null: it is not.</summary>
    string? Otherwise { get; }
}
