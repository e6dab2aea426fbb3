"""Which container a sound file is, by its first bytes and never by its name. Pure.

Only containers that hold sound themselves are known: a playlist or a script names other files, and is none of them.
"""

_AT_START = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"caff", "caf"),
    (b"#!AMR", "amr"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
)


def demuxer(raw: bytes) -> str | None:
    """Return FFmpeg's name for the container of a sound file, None if it is none that can be announced."""
    for mark, name in _AT_START:
        if raw.startswith(mark):
            return name
    if raw[:4] == b"RIFF" and raw[8:12] == b"WAVE":
        return "wav"
    if raw[:4] == b"FORM" and raw[8:12] in {b"AIFF", b"AIFC"}:
        return "aiff"
    if raw[4:8] == b"ftyp":
        return "mov"
    if len(raw) > 1 and raw[0] == 0xFF and raw[1] & 0xE0 == 0xE0:
        # An MPEG audio frame (ISO/IEC 11172-3, 2.4.1.3); layer 0 is AAC in ADTS (ISO/IEC 13818-7, 6.2).
        return "mp3" if raw[1] & 0x06 else "aac"
    return None
