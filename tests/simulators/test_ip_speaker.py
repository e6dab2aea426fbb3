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
from simulators.rtp_recording import ULAW, packet


def speaker(folder: Path, **more: Any) -> Speaker:
    faults = Faults([], time.monotonic)
    return Speaker(id="speaker-01", user="box", password="geheim", recordings=folder, faults=faults, **more)


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
    told = json.loads(body)
    assert told["model"] == "SIM-HORN 30"
    assert told["serial"]
    assert told["mains"] is True
    assert "battery_volts" not in told
    assert wrong == 401


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@needs_curl
async def test_a_group_is_joined_when_curl_asks_for_it(tmp_path: Path, eventually: Any) -> None:
    one, port = speaker(tmp_path), free_port()
    async with serving(one) as url:
        ask = {"codec": "L16", "sample_rate": 16000, "payload_type": 96, "volume": 100}
        for wrong in ("10.0.0.1:5004", "239.1.1.1", "239.1.1.1:0"):
            status, body = await curl(
                f"{url}/api/v1/stream", "-X", "PUT", "-d", json.dumps({**ask, "multicast": wrong})
            )
            assert (status, "multicast" in body) == (422, True)
        group = f"239.18.7.4:{port}"
        status, body = await curl(f"{url}/api/v1/stream", "-X", "PUT", "-d", json.dumps({**ask, "multicast": group}))
        assert json.loads(body) == {"port": port, "multicast": group}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            out.sendto(rtp(1, 0, np.full(320, 5000)), ("239.18.7.4", port))
        await eventually(lambda: one.stream is not None and one.stream.recording.packets == 1)


@needs_curl
async def test_a_loudspeaker_without_mains_is_gone_loses_its_stream_and_comes_back_anew(tmp_path: Path) -> None:
    one = speaker(tmp_path, started=time.monotonic() - 500)
    async with serving(one) as url:
        ask = json.dumps({"codec": "L16", "sample_rate": 16000, "payload_type": 96, "volume": 100})
        await curl(f"{url}/api/v1/stream", "-X", "PUT", "-d", ask)
        uptimes = []
        for fault, expected in ((None, 200), (Fault.MAINS_LOST, 0), (None, 200)):
            one.faults.forced = fault
            async with asyncio.timeout(20):
                while (answer := await curl(f"{url}/api/v1/status"))[0] != expected:
                    await asyncio.sleep(0.02)
            uptimes.append(json.loads(answer[1])["uptime_seconds"] if answer[1] else -1)
        assert one.stream is None
    assert uptimes[0] >= 500
    assert uptimes[1] == -1
    assert 0 <= uptimes[2] < 20


@needs_curl
async def test_a_loudspeaker_with_a_battery_outlives_the_mains(tmp_path: Path) -> None:
    one = speaker(tmp_path, battery=True)
    async with serving(one) as url:
        one.faults.forced = Fault.MAINS_LOST
        _, body = await curl(f"{url}/api/v1/status")
    told = json.loads(body)
    assert (told["mains"], told["battery_volts"]) == (False, 12.8)


async def test_a_microphone_in_the_room_keeps_a_recording_beside_the_horns(tmp_path: Path) -> None:
    one = speaker(tmp_path, room_metres=34.3, seed=5)
    loud = np.full(16_000, 20_000, dtype=np.int16)
    one.kept.keep(loud, 16_000, {"speaker": "speaker-01"})
    with wave.open(str(tmp_path / "speaker-01-1.room.wav")) as recorded:
        there = np.frombuffer(recorded.readframes(40_000), dtype="<i2")
    assert np.abs(there[:1500]).max() < 50, "34.3 m are a tenth of a second"
    assert there[1600:1900].mean() == pytest.approx(20_000 / 34.3, rel=0.1)
    facts = json.loads((tmp_path / "speaker-01-1.json").read_text())
    assert facts == {"speaker": "speaker-01", "room_metres": 34.3}


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


@needs_curl
@pytest.mark.parametrize("fault", [Fault.LINE_OPEN, Fault.AMPLIFIER_FAILED, Fault.MUTED])
async def test_a_broken_line_records_silence(tmp_path: Path, eventually: Any, fault: Fault) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url:
        ask = json.dumps({"codec": "L16", "sample_rate": 16000, "payload_type": 96, "volume": 100})
        _, body = await curl(f"{url}/api/v1/stream", "-X", "PUT", "-d", ask)
        one.faults.forced = fault
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(rtp(1, 0, np.full(320, 9000)), ("127.0.0.1", json.loads(body)["port"]))
        await eventually(lambda: one.stream is not None and one.stream.recording.packets == 1)
    with wave.open(str(tmp_path / "speaker-01-1.wav")) as recorded:
        assert recorded.readframes(1000) == bytes(640)
    assert json.loads((tmp_path / "speaker-01-1.json").read_text())["silenced_by"] == fault.value


def test_what_is_no_rtp_is_not_taken_for_it() -> None:
    assert packet(b"") is None
    assert packet(b"\x00" * 20) is None
    assert packet(bytes([0x80 | 0x20, 96, *([0] * 10), 255])) is None


def test_mu_law_is_the_table_of_the_recommendation() -> None:
    assert ULAW[0xFF] == 0
    assert ULAW[0x7F] == 0
    assert ULAW[0x00] == -32124
    assert ULAW[0x80] == 32124
