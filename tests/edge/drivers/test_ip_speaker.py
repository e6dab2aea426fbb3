"""The loudspeaker driver against the simulated loudspeaker: real HTTP, real RTP, and an ear at the horn."""

import asyncio
import contextlib
import json
import socket
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.catalog import CATALOG, STATE, Cause, Condition, Kind
from contract.clock import SystemClock
from edge.audio import Encoding, Form
from edge.drivers.ip_speaker import MOST_ANSWER, IpSpeaker, Status, answer, condition, samples
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators.faults import Fault, Faults
from simulators.ip_speaker import Speaker, serving
from simulators.rtp_recording import ULAW


def speaker(folder: Path, **more: Any) -> Speaker:
    faults = Faults([], time.monotonic)
    return Speaker(id="speaker-01", user="box", password="geheim", recordings=folder, faults=faults, **more)


def ip_speaker(url: str, password: str = "geheim", codec: str = "L16/16000", **more: Any) -> IpSpeaker:
    return IpSpeaker(url=url, username="box", password=password, codec=codec, timeout=0.5, clock=SystemClock(), **more)


def encoded(sound: NDArray[np.int16], form: Form) -> bytes:
    if form.encoding is Encoding.L16:
        return bytes(sound.astype(">i2"))
    nearest = np.abs(ULAW[None, :].astype(np.int32) - sound[:, None].astype(np.int32)).argmin(axis=1)
    return bytes(nearest.astype(np.uint8))


async def test_a_loudspeaker_tells_volume_and_supervision(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url, ip_speaker(url) as driver:
        found = {one.metric: one.value for one in await driver.read()}
    assert found["Audio/Volume"] == 50
    assert found["Amp/OK"] is True
    assert found["Playback/State"] == "idle"
    assert found["Power/Mains"] is True
    assert found["Device/Serial"]
    assert found[STATE] == Condition.OK
    assert not {"Audio/Level", "Power/BatteryV"} & found.keys(), "nothing sounds, and it has no battery"
    assert found.keys() <= {one.name for one in CATALOG[Kind.LOUDSPEAKER].metrics}


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault.AMPLIFIER_FAILED, Condition.AMPLIFIER_FAILED),
        (Fault.LINE_OPEN, Condition.LINE_FAILED),
        (Fault.MUTED, Condition.MUTED),
    ],
)
async def test_what_is_wrong_with_a_loudspeaker_that_answers_is_its_state(
    tmp_path: Path, fault: Fault, state: Condition
) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        one.faults.forced = fault
        assert {one.metric: one.value for one in await driver.read()}[STATE] == state


async def test_a_loudspeaker_that_began_anew_says_so_once(tmp_path: Path) -> None:
    one = speaker(tmp_path, started=time.monotonic() - 500)
    async with serving(one) as url, ip_speaker(url) as driver:
        states = []
        for fault in (None, Fault.REBOOT, Fault.REBOOT, None):
            one.faults.forced = fault
            states.append({one.metric: one.value for one in await driver.read()}[STATE])
    assert states == ["ok", "rebooted", "ok", "ok"]


async def test_a_loudspeaker_without_mains_is_gone_and_comes_back_anew(tmp_path: Path, eventually: Any) -> None:
    one = speaker(tmp_path, started=time.monotonic() - 500)
    async with serving(one) as url:
        driver = ip_speaker(url)
        async with driver:
            await driver.read()
            one.faults.forced = Fault.MAINS_LOST
            with pytest.raises(DeviceUnavailable) as caught:
                await driver.read()
            assert caught.value.cause is Cause.REFUSED
        one.faults.forced = None

        async def state() -> object:
            try:
                async with driver:
                    return {one.metric: one.value for one in await driver.read()}[STATE]
            except DeviceUnavailable:
                return None

        async with asyncio.timeout(10):
            while (after := await state()) is None:
                await asyncio.sleep(0.02)
    assert after == Condition.REBOOTED


async def test_a_loudspeaker_with_a_battery_goes_on_without_mains_and_says_so(tmp_path: Path) -> None:
    one = speaker(tmp_path, battery=True)
    async with serving(one) as url, ip_speaker(url) as driver:
        before = {one.metric: one.value for one in await driver.read()}
        one.faults.forced = Fault.MAINS_LOST
        after = {one.metric: one.value for one in await driver.read()}
    assert (before["Power/Mains"], after["Power/Mains"]) == (True, False)
    assert before["Power/BatteryV"] == 13.6
    assert after["Power/BatteryV"] == 12.8


async def test_while_it_sounds_the_level_is_told(tmp_path: Path, eventually: Any) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        async with driver.sounding(volume=50) as sink:
            await sink.write(b"\x40\x00" * 1600)
            await eventually(lambda: one.stream is not None and one.stream.recording.packets == 5)
            found = {one.metric: one.value for one in await driver.read()}
    assert found["Playback/State"] == "playing"
    assert found["Audio/Level"] == pytest.approx(-6.0, abs=0.1)


def test_the_worst_of_a_state_is_told() -> None:
    every: dict[str, Any] = {
        "uptime_seconds": 5,
        "muted": True,
        "temperature_celsius": 80.0,
        "line_ok": False,
        "amplifier_ok": False,
    }
    found = []
    for mended in ({}, {"amplifier_ok": True}, {"line_ok": None}, {"muted": False}, {"temperature_celsius": 75.0}):
        every |= mended
        found.append(condition(Status.model_validate({**STATUS, **every}), 6).value)
    assert found == ["amplifier_failed", "line_failed", "muted", "hot", "rebooted"]
    assert condition(Status.model_validate({**STATUS, **every}), 5) is Condition.OK
    assert condition(Status.model_validate({**STATUS, **every}), None) is Condition.OK


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_a_loudspeaker_hears_a_group_that_it_was_asked_to_join(tmp_path: Path) -> None:
    tone = (12_000 * np.sin(np.arange(4000) / 9)).astype(np.int16)
    group = f"239.18.7.2:{free_port()}"
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url, multicast=group, interface="127.0.0.1") as driver:
        async with driver.sounding(volume=100) as sink:
            assert one.stream is not None
            assert one.stream.transport.get_extra_info("sockname")[0] == "239.18.7.2"
            await sink.write(encoded(tone, driver.form))
    with wave.open(str(tmp_path / "speaker-01-1.wav")) as recorded:
        heard = np.frombuffer(recorded.readframes(4000), dtype="<i2")
    assert np.array_equal(heard, tone)


async def test_a_loudspeaker_that_does_not_join_the_group_is_found_out_before_a_packet_is_sent() -> None:
    async def deaf(request: web.Request) -> web.Response:
        answers = {"PUT": {"port": 9}, "DELETE": {"packets": 0, "lost": 0}}
        return web.json_response(answers.get(request.method, STATUS))

    async with answering(deaf) as url, ip_speaker(url, multicast="239.18.7.3:5004") as driver:
        with pytest.raises(DeviceUnavailable, match="not to the group"):
            async with driver.sounding(volume=50):
                raise AssertionError("it must not be believed")


@pytest.mark.parametrize(
    "wrong",
    [{"multicast": "239.999.1.1:5004"}, {"multicast": "239.1.1.1:70000"}, {"interface": "eth0"}],
)
def test_addresses_that_are_none_are_found_before_anything_is_sent(wrong: dict[str, str]) -> None:
    with pytest.raises(DeviceMisconfigured):
        ip_speaker("http://127.0.0.1:1", **wrong)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.UNAUTHORISED, Cause.UNAUTHORISED),
        (Fault.NONSENSE, Cause.NONSENSE),
    ],
)
async def test_failures_of_a_loudspeaker_are_told_apart(tmp_path: Path, fault: Fault, cause: Cause) -> None:
    one = speaker(tmp_path)
    one.faults.forced = fault
    async with serving(one) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is cause


async def test_a_wrong_password_and_a_closed_port_are_told_apart(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url, ip_speaker(url, password="guess") as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.UNAUTHORISED
    async with ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.REFUSED


@pytest.mark.parametrize(("codec", "tolerance"), [("L16/16000", 0), ("PCMU/8000", 600)])
async def test_what_is_played_is_what_the_horn_lets_people_hear(tmp_path: Path, codec: str, tolerance: int) -> None:
    rate = int(codec.partition("/")[2])
    tone = (12_000 * np.sin(np.arange(rate // 4) / 9)).astype(np.int16)
    async with serving(speaker(tmp_path)) as url, ip_speaker(url, codec=codec) as driver:
        async with driver.sounding(volume=100) as sink:
            assert driver.form.rate == rate
            await sink.write(encoded(tone[:1000], driver.form))
            await sink.write(encoded(tone[1000:], driver.form))
    with wave.open(str(tmp_path / "speaker-01-1.wav")) as recorded:
        heard = np.frombuffer(recorded.readframes(rate), dtype="<i2").astype(np.int32)
    assert np.max(np.abs(heard[: len(tone)] - tone)) <= tolerance
    assert len(heard) - len(tone) < rate * 0.02


@pytest.mark.parametrize("fault", [Fault.DEAF, Fault.MUTED, Fault.LINE_OPEN, Fault.AMPLIFIER_FAILED])
async def test_a_loudspeaker_that_did_not_sound_is_not_believed_to_have(tmp_path: Path, fault: Fault) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable):
            async with driver.sounding(volume=60) as sink:
                one.faults.forced = fault
                await sink.write(bytes(2 * 1600))


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(
        lambda thing: json.dumps(thing).encode()
    )
)
def test_whatever_a_loudspeaker_answers_is_a_status_or_nonsense(raw: bytes) -> None:
    try:
        answer(Status, raw, "GET status")
    except DeviceUnavailable as exc:
        assert exc.cause is Cause.NONSENSE


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Run a device that answers everything in its own way."""
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


STATUS = {"model": "m", "firmware": "f", "uptime_seconds": 1, "volume": 50, "muted": False, "playing": False}


CASES = Path(__file__).parents[2] / "cases" / "ip_speaker"
EXPECTED = dict(line.split(": ", 1) for line in (CASES / "expected.txt").read_text().splitlines())


@pytest.mark.parametrize("name", sorted(one.stem for one in CASES.glob("*.status")))
async def test_a_status_is_read_or_is_nonsense_and_says_where(name: str) -> None:
    async def say(_: web.Request) -> web.Response:
        return web.Response(body=(CASES / f"{name}.status").read_bytes())

    async with answering(say) as url, ip_speaker(url) as driver:
        try:
            found = {one.metric: one.value for one in await driver.read()}
        except DeviceUnavailable as exc:
            assert exc.cause is Cause.NONSENSE
            assert f"/api/v1/status: {EXPECTED[name]}: " in str(exc)
        else:
            assert EXPECTED[name] == "ok"
            assert found["Audio/Volume"] == 50


async def test_an_endless_answer_is_nonsense_and_read_no_further() -> None:
    async def say(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while True:
                await response.write(b"x" * 4096)
        return response

    async with answering(say) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable, match=f"more than {MOST_ANSWER} bytes") as caught:
            await driver.read()
    assert caught.value.cause is Cause.NONSENSE


async def test_a_device_that_sends_us_elsewhere_is_not_followed() -> None:
    async def send_away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async with answering(send_away) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable, match="HTTP 302") as caught:
            await driver.read()
    assert caught.value.cause is Cause.REFUSED


async def test_an_answer_that_trickles_in_is_silence_after_the_time_limit() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        return response

    async with answering(trickle) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.SILENT


def test_supervision_that_a_device_does_not_have_is_left_out() -> None:
    told = {one.metric for one in samples(Status.model_validate(STATUS), None, at=0)}
    assert not told & {"Amp/OK", "Line/OK", "Device/Temperature", "Power/Mains", "Power/BatteryV", "Device/Serial"}


async def test_a_stream_left_open_before_a_power_cut_does_not_silence_the_next_announcement(tmp_path: Path) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url:
        login = aiohttp.DigestAuthMiddleware("box", "geheim")
        async with aiohttp.ClientSession(middlewares=[login]) as before:
            ask = {"codec": "L16", "sample_rate": 16_000, "payload_type": 96, "volume": 50}
            assert (await before.put(f"{url}/api/v1/stream", json=ask)).status == 200
        async with ip_speaker(url) as driver, driver.sounding(volume=70) as sink:
            await sink.write(b"\x23\x28" * 1600)
            assert one.volume == 70
    assert (tmp_path / "speaker-01-1.wav").exists()


async def test_a_second_programme_does_not_break_into_the_one_that_sounds(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url, ip_speaker(url) as driver:
        async with driver.sounding(volume=50) as sink:
            with pytest.raises(DeviceUnavailable, match="already sounding"):
                async with driver.sounding(volume=50):
                    pass
            await sink.write(bytes(2 * 1600))


async def test_a_programme_that_is_stopped_ends_at_the_horn_at_once(tmp_path: Path) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        sounds = asyncio.Event()

        async def play() -> None:
            async with driver.sounding(volume=50) as sink:
                await sink.write(bytes(2 * 1600))
                sounds.set()
                await sink.write(bytes(2 * 160_000))

        playing = asyncio.create_task(play())
        await asyncio.wait_for(sounds.wait(), 5)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert one.stream is None
        async with driver.sounding(volume=50) as sink:
            await sink.write(bytes(2 * 320))


@pytest.mark.parametrize(("kept", "complaint"), [(90, "set its volume to 90"), (10, "at volume 10")])
async def test_a_device_that_keeps_its_own_volume_is_found_out(kept: int, complaint: str) -> None:
    deleted = []

    async def stubborn(request: web.Request) -> web.Response:
        if request.method == "PUT":
            return web.json_response({"port": 9})
        if request.method == "DELETE":
            deleted.append(request.path)
            return web.json_response({"packets": 5, "lost": 0})
        return web.json_response({**STATUS, "volume": kept})

    async with answering(stubborn) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable, match=complaint):
            async with driver.sounding(volume=50) as sink:
                assert kept < 50, "louder than ordered: not one packet"
                await sink.write(bytes(2 * 1600))
    assert deleted == ["/api/v1/stream"]


async def test_a_device_that_vanishes_while_it_sounds_is_not_believed_to_have_sounded(tmp_path: Path) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            async with driver.sounding(volume=50) as sink:
                await sink.write(bytes(2 * 320))
                one.faults.forced = Fault.SILENT
    assert caught.value.cause is Cause.SILENT


async def test_an_address_where_nobody_is_and_a_device_that_hangs_up_are_told_apart() -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as callers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # a full queue drops further calls, as an absent device does
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        async with ip_speaker(f"http://127.0.0.1:{deaf.getsockname()[1]}") as driver:
            with pytest.raises(DeviceUnavailable) as caught:
                await driver.read()
    assert caught.value.cause is Cause.UNREACHABLE

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        async with ip_speaker(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as driver:
            with pytest.raises(DeviceUnavailable) as caught:
                await driver.read()
    assert caught.value.cause is Cause.REFUSED


async def test_a_status_that_comes_in_pieces_is_read_whole() -> None:
    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        raw = json.dumps(STATUS).encode()
        for start in range(0, len(raw), 20):
            await response.write(raw[start : start + 20])
            await asyncio.sleep(0.01)
        return response

    async with answering(in_pieces) as url, ip_speaker(url) as driver:
        assert {one.metric: one.value for one in await driver.read()}["Audio/Volume"] == 50


async def test_a_login_that_expired_is_renewed_without_a_word(tmp_path: Path) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        await driver.read()
        one.login.nonces.clear()
        assert await driver.read()
