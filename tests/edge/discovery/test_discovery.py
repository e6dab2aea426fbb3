"""Searching: what answers is told as configuration that can be pasted; what lies, floods or attacks is left out."""

import asyncio
import re
import socket
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from edge.config import load
from edge.discovery import mdns, onvif, serial_ports, ubus
from edge.discovery.found import Found, toml
from edge.discovery.search import Where, search
from simulators.faults import Fault, Faults
from simulators.modbus_probe import Probe, bus

CASES = sorted((Path(__file__).parents[2] / "cases" / "discovery").glob("*.xml"))

NODE = """
[node]
group = "g"
id = "n"
state_dir = "state"
[[brokers]]
host = "127.0.0.1"
"""


class Camera(asyncio.DatagramProtocol):
    """Answers a probe with what it is given."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.heard: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.append(data)
        for one in self.answers:
            self.transport.sendto(one, addr)  # type: ignore[attr-defined]


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[Camera, tuple[str, int]]]:
    transport, camera = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Camera(*answers), local_addr=("127.0.0.1", 0)
    )
    try:
        yield camera, transport.get_extra_info("sockname")
    finally:
        transport.close()


def case(name: str) -> bytes:
    return next(one for one in CASES if one.stem == name).read_bytes()


async def test_a_camera_that_answers_is_told_as_configuration_that_loads(tmp_path: Path) -> None:
    async with answering(case("camera")) as (camera, address):
        found = await onvif.cameras(seconds=0.2, interface="127.0.0.1", to=address)
    assert b"NetworkVideoTransmitter" in camera.heard[0]
    [one] = found
    assert one.seen == "ONVIF: Cổng Ấp 3 DS-2CD1021"
    file = tmp_path / "edge.toml"
    file.write_text(NODE + toml(found), encoding="utf-8")
    [device] = load(file).devices
    assert (device.id, device.driver, getattr(device, "url", "")) == (
        "cam-192-168-1-30",
        "onvif_camera",
        "http://192.168.1.30",
    )
    assert "password_file" in toml(found), "what only a person knows is left to fill in"


@pytest.mark.parametrize("file", [one for one in CASES if one.stem != "camera"], ids=lambda one: one.stem)
async def test_a_hostile_answer_is_left_out_and_hides_no_camera(file: Path) -> None:
    async with answering(file.read_bytes(), b"\x00" * 60_000, case("camera")) as (_, address):
        found = await onvif.cameras(seconds=0.2, interface="127.0.0.1", to=address)
    assert [one.table["url"] for one in found] == ["http://192.168.1.30"]


async def test_a_camera_that_answers_a_thousand_times_stands_once() -> None:
    async with answering(*[case("camera")] * 1000) as (_, address):
        assert len(await onvif.cameras(seconds=0.3, interface="127.0.0.1", to=address)) == 1


@given(st.binary(max_size=300))
def test_no_datagram_breaks_the_search(datagram: bytes) -> None:
    assert onvif.match(datagram) is None


@given(st.text(), st.text(max_size=60), st.text())
def test_a_strangers_words_cannot_break_out_of_the_comment(seen: str, name: str, value: str) -> None:
    text = toml([Found(seen=seen, table={"id": name, "kind": value})])
    assert tomllib.loads(text) == {"devices": [{"id": name, "kind": value}]}


async def test_what_announces_itself_by_mdns_is_found() -> None:
    zone = AsyncZeroconf(interfaces=["127.0.0.1"])
    services = [
        ServiceInfo(
            kind,
            f"{name}.{kind}",
            addresses=[socket.inet_aton("127.0.0.9")],
            port=port,
            properties=properties,
            server=f"{name}.local.",
        )
        for kind, name, port, properties in (
            (mdns.RTSP, "cam-gate", 8554, {"path": "/live/main"}),
            (mdns.ESPHOME, "air-03", 6053, {}),
        )
    ]
    for one in services:
        await zone.async_register_service(one)
    try:
        found = {one.table["id"]: one.table for one in await mdns.announced(seconds=3.0, interface="127.0.0.1")}
    finally:
        await zone.async_close()
    assert found["cam-127-0-0-9"]["stream_url"] == "rtsp://127.0.0.9:8554/live/main"
    assert (found["air-air-03"]["driver"], found["air-air-03"]["topic"]) == ("mqtt_sensor", "air-03")


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    application = web.Application()
    application.add_routes([web.post("/ubus", answer)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_router_is_known_by_how_it_refuses_and_no_password_is_tried() -> None:
    bodies: list[Any] = []

    async def refuse(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        error = {"code": -32002, "message": "Access denied"}
        return web.json_response({"jsonrpc": "2.0", "id": 1, "error": error})

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>login</html>", content_type="text/html")

    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/ubus"})

    async def nest(request: web.Request) -> web.Response:
        return web.Response(text="[" * 60_000, content_type="application/json")

    async with serving(refuse) as router, serving(page) as other, serving(away) as third, serving(nest) as fourth:
        found = await ubus.routers([router, other, third, fourth, "http://127.0.0.1:1"], seconds=5)
    assert [one.table["url"] for one in found] == [router]
    assert not re.search("login|password", str(bodies))


def test_neighbours_are_read_from_the_kernels_tables(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t0101A8C0\t0003\neth0\t0001A8C0\t00000000\t0001\n"
    )
    (tmp_path / "arp").write_text("IP address  HW type\n192.168.1.7  0x1  0x2\n192.168.1.1  0x1  0x2\n")
    assert ubus.neighbours(tmp_path) == ["192.168.1.1", "192.168.1.7"]
    assert ubus.neighbours(tmp_path / "nowhere") == []


async def test_slaves_that_answer_on_a_serial_port_are_told_and_absent_ones_are_not(tmp_path: Path) -> None:
    probes = [
        Probe(id=f"p{slave}", slave=slave, seed=7, faults=Faults([], time.monotonic), now=time.time) for slave in (2, 5)
    ]
    probes[1].faults.forced = Fault.ILLEGAL_ADDRESS
    port = tmp_path / "ttyUSB0"
    async with bus(probes, link=port, paced=False):
        found = await serial_ports.scan([port, tmp_path / "ttyUSB9"], baud=9600, slaves=6)
    assert [one.table["slave"] for one in found] == [2, 5]
    file = tmp_path / "edge.toml"
    file.write_text(NODE + toml(found), encoding="utf-8")
    assert len(load(file).devices) == 2


def test_a_port_with_two_names_stands_once_by_the_one_that_lasts(tmp_path: Path) -> None:
    (tmp_path / "serial" / "by-id").mkdir(parents=True)
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "ttyUSB1").touch()
    lasting = tmp_path / "serial" / "by-id" / "usb-FTDI-1"
    lasting.symlink_to(tmp_path / "ttyUSB0")
    assert serial_ports.present(tmp_path) == [lasting, tmp_path / "ttyUSB1"]


async def test_one_part_that_fails_costs_only_its_own_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(**_: object) -> list[Found]:
        raise OSError("no multicast here")

    async def finds(*_: object, **__: object) -> list[Found]:
        return [Found(seen="x", table={"id": "a"}), Found(seen="y", table={"id": "a"})]

    monkeypatch.setattr(onvif, "cameras", fails)
    monkeypatch.setattr(mdns, "announced", finds)
    monkeypatch.setattr(serial_ports, "scan", finds)
    assert [one.seen for one in await search(Where(seconds=0.1))] == ["x"]
