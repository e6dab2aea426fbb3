"""A process that speaks text with eSpeak NG: `python -m hub.speech_worker VOICE`, text in, WAV out.

eSpeak NG is GPL-3.0 and an optional extra; it is loaded here and nowhere else, so the hub never links it.
"""

import ctypes
import io
import sys
import wave

RETRIEVAL, UTF8, RATE_WORDS, VOLUME = 1, 1, 1, 3
WORDS_A_MINUTE = 150
MISSING = 3
"""Exit status where the extra is not installed."""


def main() -> int:
    """Speak standard input into standard output; return 0, or MISSING, or 1 where eSpeak refuses."""
    try:
        import espeakng_loader  # noqa: PLC0415  # an optional extra
    except ImportError:
        return MISSING
    voice, text = sys.argv[1], sys.stdin.buffer.read()
    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    rate = library.espeak_Initialize(RETRIEVAL, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    # The return code matters: with an unknown voice it would go on speaking in another one.
    if rate <= 0 or library.espeak_SetVoiceByName(voice.encode()) != 0:
        return 1
    library.espeak_SetParameter(RATE_WORDS, WORDS_A_MINUTE, 0)
    library.espeak_SetParameter(VOLUME, 60, 0)  # at 100 its peaks are cut off
    sound = bytearray()

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def take(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            sound.extend(ctypes.string_at(samples, count * 2))
        return 0

    heard = callback(take)  # held here: the library keeps no reference
    library.espeak_SetSynthCallback(heard)
    if library.espeak_Synth(text + b"\0", len(text) + 1, 0, 0, 0, UTF8, None, None) != 0:
        return 1
    library.espeak_Synchronize()
    sink = io.BytesIO()
    with wave.open(sink, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(sound))
    sys.stdout.buffer.write(sink.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
