"""What commands may never do: make a loudspeaker sound or change how loud it is, whoever sends them. Pure.

Which role may send which command to what stands in the table (`edge_node rebirth`, `edge_node write`). Our own edge
nodes obey no plain write at all; this is for equipment of others, whose loudspeakers would obey one.
"""

SOUNDING = ("audio/", "playback/", "announcement/", "broadcast/", "command/")
"""How the names of metrics begin that have to do with sound, or that wrap a command in another."""


def sounds(metric: str) -> bool:
    """Return whether writing a metric could make something sound, or louder."""
    return metric.lstrip().lower().startswith(SOUNDING)
