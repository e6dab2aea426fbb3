"""The camera driver against simulated cameras, and against whatever else may stand at a camera's address."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from aiohttp import web

from contract.catalog import STATE, Cause, Condition
from contract.clock import SystemClock
from edge.drivers.onvif_camera import Address, Before, Looked, OnvifCamera, condition
from edge.poller import DeviceUnavailable
from edge.workers import Pool, Worker
from simulators.camera.camera import Found, serving
from simulators.camera.device import Camera
from simulators.faults import Fault, Faults

CASES = sorted((Path(__file__).parents[2] / "cases" / "cameras").glob("*.yaml"))
PICTURE = {"brightness": 50.0, "dark": 0.0, "sharpness": 30.0, "width": 320, "height": 180, "digest": "a"}
MANAGED = {"serial": "1", "skew": 0.0, "rebooted_at": None}


@dataclass
class Workers:
    desk: Worker = field(default_factory=lambda: Worker("edge.camera.onvif_worker", exclusive=False))
    frames: Pool = field(default_factory=lambda: Pool("edge.camera.frame_worker", 2))

    def driver(self, address: Address, timeout: float = 6.0, name: str = "cam-01", **more: Any) -> OnvifCamera:
        asked: dict[str, Any] = {"username": "box", "password": "demo", "serial": None, "events": True, **more}
        return OnvifCamera(
            name,
            address,
            timeout=timeout,
            desk=self.desk,
            frames=self.frames,
            clock=SystemClock(),
            **asked,
        )


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    one = Workers()
    yield one
    await one.desk.end()
    await one.frames.end()


def camera(**more: Any) -> Camera:
    return Camera(id="cam-01", user="box", password="demo", faults=Faults([], time.monotonic), **more)


async def told(driver: OnvifCamera) -> dict[str, Any]:
    found = await driver.read()
    assert {one.metric for one in found} <= {one.name for one in driver.metrics}
    assert len({one.at for one in found}) == 1
    return {one.metric: one.value for one in found}


def everything(found: Found) -> list[Address]:
    return [
        Address(url=found.url),
        Address(stream=found.stream_url),
        Address(snapshot=found.snapshot_url),
    ]


async def test_management_stream_and_snapshot_each_will_do(workers: Workers) -> None:
    async with serving(camera(serial="SN-7")) as found:
        whole, stream, snapshot = [await told(workers.driver(one)) for one in everything(found)]
    assert (whole["Device/Serial"], whole["Device/Model"], whole["Picture/Codec"]) == ("SN-7", "SIM SIM-ROAD 2", "h264")
    assert abs(whole["Clock/Skew"]) < 5
    for one in (whole, stream, snapshot):
        assert one[STATE] == "ok"
        assert one["Picture/Width"] == 320
        assert 40 < one["Picture/Brightness"] < 60
        assert one["Picture/Age"] == 0
    assert "Device/Serial" not in stream
    assert snapshot["Picture/Codec"] == "mjpeg"


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        (Fault.BLACK, ["black", "black"]),
        (Fault.NO_STREAM, ["no_stream", "no_stream"]),
        (Fault.NO_KEY_FRAMES, ["no_picture"]),
        (Fault.CLOCK_JUMP, ["clock_off", "clock_off"]),
    ],
)
async def test_what_a_camera_shows_has_a_name_within_two_checks_and_passes(
    workers: Workers, fault: Fault, states: list[str]
) -> None:
    one = camera()
    async with serving(one) as found:
        driver = workers.driver(Address(url=found.url), timeout=4.0)
        assert (await told(driver))[STATE] == "ok"
        one.faults.forced = fault
        assert [(await told(driver))[STATE] for _ in states] == states
        one.faults.forced = None
        assert (await told(driver))[STATE] == "ok"


async def test_a_picture_that_never_changes_is_frozen_at_the_second_look(workers: Workers) -> None:
    one = camera()
    async with serving(one) as found:
        driver = workers.driver(Address(url=found.url), timeout=4.0)
        one.faults.forced = Fault.FROZEN
        first, second = await told(driver), await told(driver)
        assert (first[STATE], second[STATE]) == ("ok", "frozen")
        assert second["Picture/Age"] > 0
        one.faults.forced = None
        assert (await told(driver))[STATE] == "ok"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.REFUSE, Cause.REFUSED),
        (Fault.UNAUTHORISED, Cause.UNAUTHORISED),
        (Fault.NONSENSE, Cause.NONSENSE),
        (Fault.MAINS_LOST, Cause.REFUSED),
    ],
)
@pytest.mark.parametrize("way", [0, 1, 2], ids=["onvif", "stream", "snapshot"])
async def test_a_camera_that_does_not_answer_says_why_and_comes_back(
    workers: Workers, fault: Fault, cause: Cause, way: int
) -> None:
    one = camera()
    async with serving(one) as found:
        driver = workers.driver(everything(found)[way], timeout=2.5)
        one.faults.forced = fault
        await asyncio.sleep(0.2)  # ports close by the simulator's own rhythm
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
        assert caught.value.cause is cause
        assert "demo" not in str(caught.value)
        one.faults.forced = None
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(DeviceUnavailable):
                    assert (await told(driver))["Picture/Width"] == 320
                    break


async def test_a_camera_whose_management_is_dead_still_shows_its_stream(workers: Workers) -> None:
    async with serving(camera(onvif=False)) as found:
        values = await told(workers.driver(Address(url=found.url, stream=found.stream_url)))
    assert values[STATE] == "ok"
    assert "Clock/Skew" not in values


async def test_no_password_is_tried_where_none_was_configured(workers: Workers) -> None:
    async with serving(camera()) as found:
        for address in everything(found):
            with pytest.raises(DeviceUnavailable) as caught:
                await workers.driver(address, username=None, password=None).read()
            assert caught.value.cause is Cause.UNAUTHORISED


async def test_anothers_camera_is_told_by_its_serial_number(workers: Workers) -> None:
    async with serving(camera(serial="SN-7")) as found:
        assert (await told(workers.driver(Address(url=found.url), serial="SN-8")))[STATE] == "wrong_device"
        assert (await told(workers.driver(Address(url=found.url), serial="SN-7")))[STATE] == "ok"


async def test_a_short_event_between_two_checks_is_not_missed(workers: Workers) -> None:
    async with serving(camera()) as found:
        driver = workers.driver(Address(url=found.url))
        async with asyncio.timeout(10):
            while "Event/Motion" not in (values := await told(driver)):
                pass
        assert values["Event/Motion"] is False
        found.happen("motion", True)
        found.happen("motion", False)
        async with asyncio.timeout(10):
            while not (await told(driver))["Event/Motion"]:
                pass
        assert (await told(driver))["Event/Motion"] is False


async def test_a_camera_that_started_anew_says_so_once(workers: Workers) -> None:
    one = camera()
    async with serving(one) as found:
        driver = workers.driver(Address(url=found.url))
        async with asyncio.timeout(10):
            while "Event/Motion" not in await told(driver):
                pass
        one.faults.forced = Fault.REBOOT
        await asyncio.sleep(1.1)  # it tells whole seconds
        states = []
        async with asyncio.timeout(20):
            while "rebooted" not in states:
                states.append((await told(driver))[STATE])
        assert (await told(driver))[STATE] == "ok"
    assert states.count("rebooted") == 1


@dataclass
class Hostile:
    """Answers everything with what a case file says."""

    answer: bytes
    endless: bytes
    silent: bool
    open: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            while await reader.read(65_536):
                if self.silent:
                    await asyncio.sleep(3600)
                writer.write(self.answer)
                while self.endless:
                    writer.write(self.endless)
                    await writer.drain()
                await writer.drain()
        except OSError:
            return
        finally:
            self.open.discard(task)
            writer.transport.abort()


@asynccontextmanager
async def hostile(case: dict[str, Any]) -> AsyncIterator[int]:
    head = f"{str(case.get('answer', '')).rstrip()}\n\n".replace("\n", "\r\n").encode()
    body = b"".join(str(one["text"]).encode() * int(one.get("times", 1)) for one in case.get("body", []))
    one = Hostile(
        answer=head.replace(b"LENGTH", str(len(body)).encode()) + body,
        endless=str(case.get("endless", "")).encode() * 200,
        silent=bool(case.get("silent")),
    )
    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(one.open):
            task.cancel()
        await asyncio.gather(*one.open, return_exceptions=True)


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
async def test_whatever_stands_at_a_cameras_address_costs_bounded_time_and_no_neighbour(
    workers: Workers, file: Path
) -> None:
    case = yaml.safe_load(file.read_text(encoding="utf-8"))
    async with hostile(case) as port, serving(camera()) as found:
        address = {
            "onvif": Address(url=f"http://127.0.0.1:{port}"),
            "stream": Address(stream=f"rtsp://127.0.0.1:{port}/live"),
            "snapshot": Address(snapshot=f"http://127.0.0.1:{port}/snapshot.jpg"),
        }[case["as"]]
        neighbour = workers.driver(Address(url=found.url))
        assert (await told(neighbour))[STATE] == "ok"
        begun = time.monotonic()
        attacked = asyncio.create_task(workers.driver(address, timeout=3.0, name="cam-02").read())
        assert (await told(neighbour))["Picture/Width"] == 320
        assert time.monotonic() - begun < 5.0, "the neighbour waited"
        try:
            outcome = next(str(one.value) for one in await attacked if one.metric == STATE)
        except DeviceUnavailable as exc:
            outcome = exc.cause.value
            assert len(str(exc)) < 400
        assert outcome == case["expected"]
        assert time.monotonic() - begun < 10.0
        assert (await told(neighbour))["Picture/Width"] == 320


@pytest.mark.parametrize(("width", "height"), [(8200, 16), (16, 8200), (7000, 7000)])
async def test_a_picture_of_impossible_size_is_nonsense_and_is_not_decoded(
    workers: Workers, width: int, height: int
) -> None:
    image = cv2.imencode(".jpg", np.zeros((height, width), dtype=np.uint8))[1].tobytes()

    async def show(request: web.Request) -> web.Response:
        return web.Response(body=image, content_type="image/jpeg")

    application = web.Application()
    application.add_routes([web.get("/x.jpg", show)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        driver = workers.driver(Address(snapshot=f"http://127.0.0.1:{runner.addresses[0][1]}/x.jpg"))
        with pytest.raises(DeviceUnavailable, match=f"{width} x {height}") as caught:
            await driver.read()
    finally:
        await runner.cleanup()
    assert caught.value.cause is Cause.NONSENSE


def test_the_worst_is_told_first() -> None:
    ok = Looked(picture=PICTURE, codec="h264")
    gone = Looked(failure=DeviceUnavailable(Cause.NOT_FOUND, "x"))
    late = {**MANAGED, "skew": 99.0}
    none = Before()
    assert condition({**late, "serial": "2"}, gone, serial="1", before=none) is Condition.WRONG_DEVICE
    assert condition(late, gone, serial="1", before=none) is Condition.NO_STREAM
    assert condition(late, Looked(), serial="1", before=none) is Condition.NO_PICTURE
    assert condition(late, Looked(picture={**PICTURE, "dark": 95.0}), serial=None, before=none) is Condition.BLACK
    assert condition(late, ok, serial=None, before=Before(digest="a")) is Condition.FROZEN
    assert condition(late, ok, serial=None, before=none) is Condition.CLOCK_OFF
    rebooted = {**MANAGED, "rebooted_at": "2"}
    assert condition(rebooted, ok, serial=None, before=Before(rebooted_at="1")) is Condition.REBOOTED
    assert condition(rebooted, ok, serial=None, before=Before(rebooted_at="2")) is Condition.OK
    assert condition(None, ok, serial=None, before=none) is Condition.OK
