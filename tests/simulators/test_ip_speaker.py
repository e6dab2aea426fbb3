"""The simulated loudspeaker seen through curl and a hand-made RTP stream."""

import asyncio
import json
import shutil
import socket
import struct
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators.faults import Fault, Faults
from simulators.ip_speaker import Speaker, serving
from simulators.rtp_recording import ULAW, Packet, RtpRecording, packet


def speaker(folder: Path) -> Speaker:
    return Speaker(id="speaker-01", user="box", password="geheim", recordings=folder, faults=Faults([], time.monotonic))


async def curl(url: str, *more: str, password: str = "geheim") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-m", "5", "--digest", "-u", f"box:{password}", "-w", "\n%{http_code}", *more, url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    return int(status), body


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def rtp(sequence: int, timestamp: int, samples: np.ndarray[Any, Any], ssrc: int = 7, kind: int = 96) -> bytes:
    header = struct.pack(">BBHII", 0x80, kind, sequence % 65536, timestamp % 2**32, ssrc)
    return header + samples.astype(">i2").tobytes()


@needs_curl
async def test_curl_reads_the_status_with_the_password_and_not_without(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url:
        status, body = await curl(f"{url}/api/v1/status")
        wrong, _ = await curl(f"{url}/api/v1/status", password="guess")
    assert status == 200
    assert json.loads(body)["model"] == "SIM-HORN 30"
    assert wrong == 401


@needs_curl
async def test_what_is_sent_by_rtp_is_recorded_to_the_sample(tmp_path: Path, eventually: Any) -> None:
    one = speaker(tmp_path)
    tone = (8000 * np.sin(np.arange(3200) / 7)).astype(np.int16)
    async with serving(one) as url:
        ask = json.dumps({"codec": "L16", "sample_rate": 16000, "payload_type": 96, "volume": 100})
        status, body = await curl(f"{url}/api/v1/stream", "-X", "PUT", "-d", ask)
        assert status == 200
        twice, _ = await curl(f"{url}/api/v1/stream", "-X", "PUT", "-d", ask)
        assert twice == 409
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for number in (0, 2, 1, 4, 5, 6, 7, 8, 9):  # two swapped, the fourth lost
                chunk = tone[number * 320 : number * 320 + 320]
                out.sendto(
                    rtp(65_530 + number, 2**32 - 640 + number * 320, chunk), ("127.0.0.1", json.loads(body)["port"])
                )
            out.sendto(rtp(1, 1, tone[:320], ssrc=8), ("127.0.0.1", json.loads(body)["port"]))
        await eventually(lambda: one.stream is not None and one.stream.recording.packets == 9)
        status, body = await curl(f"{url}/api/v1/stream", "-X", "DELETE")
        assert json.loads(body) == {"packets": 9, "lost": 1, "seconds": 0.2}
    expected = tone.copy()
    expected[3 * 320 : 4 * 320] = 0
    with wave.open(str(tmp_path / "speaker-01-1.wav")) as recorded:
        assert recorded.getframerate() == 16000
        heard = np.frombuffer(recorded.readframes(10_000), dtype="<i2")
    assert np.array_equal(heard, expected)
    assert json.loads((tmp_path / "speaker-01-1.json").read_text())["lost"] == 1


@needs_curl
async def test_nonsense_is_refused_by_name(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url:
        status, body = await curl(
            f"{url}/api/v1/stream",
            "-X",
            "PUT",
            "-d",
            '{"codec":"MP3","sample_rate":16000,"payload_type":96,"volume":140}',
        )
    assert status == 422
    assert "codec" in body
    assert "volume" in body


@needs_curl
async def test_a_refusing_speaker_closes_its_port_and_opens_it_again(tmp_path: Path) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url:
        for fault, expected in ((Fault.REFUSE, 0), (None, 200)):
            one.faults.forced = fault
            async with asyncio.timeout(20):
                while (await curl(f"{url}/api/v1/status"))[0] != expected:
                    await asyncio.sleep(0.02)


async def test_a_broken_line_records_silence(tmp_path: Path, eventually: Any) -> None:
    one = speaker(tmp_path)
    async with serving(one):
        one.stream = None
        recording = RtpRecording(codec="L16", sample_rate=16000, payload_type=96)
        recording.add(Packet(96, 1, 0, 1, np.full(320, 99, dtype=">i2").tobytes()))
        assert np.any(recording.samples())


def test_what_is_no_rtp_is_not_taken_for_it() -> None:
    assert packet(b"") is None
    assert packet(b"\x00" * 20) is None
    assert packet(bytes([0x80 | 0x20, 96, *([0] * 10), 255])) is None


def test_mu_law_is_the_table_of_the_recommendation() -> None:
    assert ULAW[0xFF] == 0
    assert ULAW[0x7F] == 0
    assert ULAW[0x00] == -32124
    assert ULAW[0x80] == 32124
