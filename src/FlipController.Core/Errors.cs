namespace FlipController.Core;

/// <summary>
/// Something could not be done, told in one sentence for an operator: what was attempted, on what, what the kernel or the tool
/// said, what holds now, what to do.
/// </summary>
public class FlipException(string sentence, Exception? inner = null) : Exception(sentence, inner);
