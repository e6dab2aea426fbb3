"""What commands may never do: make a loudspeaker sound or change how loud it is, whoever sends them. Pure.

Which role may send which command to what stands in the table (`edge_node rebirth`, `edge_node write`). Our own edge
nodes obey no plain write at all; this is for equipment of others, whose loudspeakers would obey one.
"""

import unicodedata

SOUNDING = frozenset({"audio", "playback", "announcement", "broadcast", "command"})
"""The parts of metrics' names that have to do with sound, or that wrap a command in another."""


def sounds(metric: str) -> bool:
    """Return whether writing a metric could make something sound, or louder; also under a name dressed up."""
    plain = "".join(one for one in unicodedata.normalize("NFKC", metric) if one.isprintable()).casefold()
    return any(part.strip() in SOUNDING for part in plain.split("/"))
