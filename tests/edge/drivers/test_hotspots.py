"""The hotspot drivers against simulated routers, against each other's failures, and against whatever else answers."""

import asyncio
import contextlib
import json
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import STATE, Cause, Kind
from contract.clock import SystemClock
from edge.config import FIRMWARE
from edge.drivers.openwrt_hotspot import OpenwrtHotspot
from edge.drivers.reachability import Reachability
from edge.drivers.snmp_hotspot import Login, SnmpHotspot
from edge.drivers.snmp_profile import Profile, load_profile
from edge.drivers.traffic import Counted, rates
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators import openwrt_hotspot, snmp_hotspot
from simulators.faults import Fault, Faults
from simulators.openwrt_hotspot import Router
from simulators.snmp_hotspot import Agent

PROFILES = FIRMWARE / "snmp_profiles"
CASES = sorted((Path(__file__).parents[2] / "cases" / "ubus").glob("*.json"))
V2C = Login(community="hamlet")
V3 = Login(username="box", auth=("sha1", "authpass1"), privacy=("aes128", "privpass1"))


def router(**more: Any) -> Router:
    return Router(id="wifi-1", user="box", password="demo", faults=Faults([], time.monotonic), **more)


def agent() -> Agent:
    return Agent(
        id="wifi-2",
        community="hamlet",
        user="box",
        auth_password="authpass1",
        privacy_password="privpass1",
        faults=Faults([], time.monotonic),
    )


def openwrt(url: str, clock: Any = None, password: str = "demo", uplink: str = "wan") -> OpenwrtHotspot:
    return OpenwrtHotspot(
        url=url, username="box", password=password, uplink=uplink, timeout=1.0, clock=clock or SystemClock()
    )


def snmp(host: str, port: int, login: Login = V3, uplink: str | None = "eth0") -> SnmpHotspot:
    return SnmpHotspot(
        host=host,
        port=port,
        login=login,
        profile=load_profile(PROFILES / "simulated.yaml"),
        uplink_interface=uplink,
        timeout=1.5,
        clock=SystemClock(),
    )


async def told(driver: Any) -> dict[str, Any]:
    found = await driver.read()
    assert {one.metric for one in found} <= {one.name for one in driver.metrics}
    return {one.metric: one.value for one in found}


@pytest.mark.parametrize("naming", ["phy0-ap0", "wlan0"])
async def test_an_openwrt_hotspot_tells_how_many_people_it_serves_whatever_it_calls_its_radios(naming: Any) -> None:
    one = router(naming=naming)
    async with openwrt_hotspot.serving(one) as url, openwrt(url) as driver:
        values = await told(driver)
    assert values["Wifi/Clients"] == sum(one.clients()) > 0
    assert (values["Wifi/RadiosOn"], values["Uplink/OK"], values[STATE]) == (2, True, "ok")
    assert (values["Device/Model"], values["Device/Firmware"]) == ("SIM AP-2", "OpenWrt 24.10.2")
    assert 40 < values["Device/Memory"] < 50
    assert values["Device/CPU"] == 10.0
    assert "02:00" not in str(values), "nobody's hardware address leaves the box"


async def test_traffic_is_what_came_between_two_reads(clock: Any) -> None:
    one = router()
    async with openwrt_hotspot.serving(one) as url, openwrt(url, clock) as driver:
        first = await told(driver)
        one.started -= 100  # the router counts its bytes by its own uptime
        await clock.advance(100)
        second = await told(driver)
    assert "Traffic/Received" not in first
    assert second["Traffic/Received"] == pytest.approx(480, rel=0.02)


@pytest.mark.parametrize(
    ("fault", "state"),
    [(Fault.NO_UPLINK, "no_uplink"), (Fault.RADIO_OFF, "no_radio")],
)
@pytest.mark.parametrize("kind", ["openwrt", "snmp"])
async def test_what_a_hotspot_shows_has_a_name_and_passes(kind: str, fault: Fault, state: str) -> None:
    async with hotspot(kind) as (one, driver):
        assert (await told(driver))[STATE] == "ok"
        one.faults.forced = fault
        assert (await told(driver))[STATE] == state
        one.faults.forced = None
        assert (await told(driver))[STATE] == "ok"


@pytest.mark.parametrize("kind", ["openwrt", "snmp"])
async def test_a_hotspot_that_started_anew_says_so_once_and_is_read_on(kind: str) -> None:
    async with hotspot(kind) as (one, driver):
        one.started -= 100
        assert (await told(driver))[STATE] == "ok"
        one.faults.forced = Fault.REBOOT
        states = []
        async with asyncio.timeout(10):
            while "rebooted" not in states:
                states.append((await told(driver))[STATE])
        assert (await told(driver))[STATE] == "ok"


@asynccontextmanager
async def hotspot(kind: str, login: Login = V3) -> AsyncIterator[tuple[Router | Agent, Any]]:
    if kind == "openwrt":
        one = router()
        async with openwrt_hotspot.serving(one) as url, openwrt(url) as driver:
            yield one, driver
        return
    other = agent()
    async with snmp_hotspot.serving(other) as (host, port), snmp(host, port, login) as asked:
        yield other, asked


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.SLOW, Cause.SILENT),
        (Fault.REFUSE, Cause.REFUSED),
        (Fault.UNAUTHORISED, Cause.UNAUTHORISED),
        (Fault.NONSENSE, Cause.NONSENSE),
        (Fault.MAINS_LOST, Cause.REFUSED),
    ],
)
@pytest.mark.parametrize("kind", ["openwrt", "snmp"])
async def test_a_hotspot_that_does_not_answer_says_why_and_comes_back(kind: str, fault: Fault, cause: Cause) -> None:
    async with hotspot(kind) as (one, driver):
        one.faults.forced = fault
        text = ""
        async with asyncio.timeout(20):  # ports close by the simulator's own rhythm
            while not text:
                try:
                    await driver.read()
                except DeviceUnavailable as exc:
                    text = str(exc) if exc.cause is cause else ""
        assert not {"demo", "authpass1", "privpass1"} & set(text.split())
        one.faults.forced = None
        await driver.__aexit__(None, None, None)
        async with asyncio.timeout(20), driver:
            state = ""
            while not state:
                with contextlib.suppress(DeviceUnavailable):
                    state = (await told(driver))[STATE]
        assert state in {"ok", "rebooted"}


async def test_a_wrong_community_is_silence_and_the_text_says_that_it_may_be_that() -> None:
    async with snmp_hotspot.serving(agent()) as (host, port):
        async with snmp(host, port, Login(community="wrong")) as driver:
            with pytest.raises(DeviceUnavailable, match="or the community is wrong") as caught:
                await driver.read()
        async with snmp(host, port, V2C) as driver:
            assert (await told(driver))[STATE] == "ok"
    assert caught.value.cause is Cause.SILENT


async def test_a_session_that_is_over_is_opened_anew_and_a_wrong_password_is_tried_once() -> None:
    one = router()
    async with openwrt_hotspot.serving(one) as url:
        async with openwrt(url) as driver:
            await driver.read()
            one.sessions.clear()
            assert (await told(driver))[STATE] == "ok"
        assert one.logins == 2
        async with openwrt(url, password="wrong") as driver:
            with pytest.raises(DeviceUnavailable) as caught:
                await driver.read()
        assert caught.value.cause is Cause.UNAUTHORISED
        assert one.logins == 3


@pytest.mark.parametrize("kind", ["openwrt", "snmp"])
async def test_an_uplink_that_is_not_there_is_named_with_those_that_are(kind: str) -> None:
    if kind == "openwrt":
        async with openwrt_hotspot.serving(router()) as url, openwrt(url, uplink="wwan") as driver:
            with pytest.raises(DeviceUnavailable, match="'wwan'; it has lan, wan") as caught:
                await driver.read()
    else:
        async with snmp_hotspot.serving(agent()) as (host, port), snmp(host, port, uplink="ppp0") as asked:
            with pytest.raises(DeviceUnavailable, match="'ppp0'; it has lo, eth0") as caught:
                await asked.read()
    assert caught.value.cause is Cause.NOT_FOUND


async def test_an_agent_that_walks_in_a_circle_costs_a_moment() -> None:
    one = agent()
    one.faults.forced = Fault.STUCK
    async with snmp_hotspot.serving(one) as (host, port), snmp(host, port) as driver:
        begun = time.monotonic()
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.NONSENSE
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
async def test_answers_of_the_wrong_shape_are_nonsense_that_names_the_place(file: Path) -> None:
    case = json.loads(file.read_text(encoding="utf-8"))

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        call = "/".join(map(str, asked["params"][1:3])) if asked["method"] == "call" else "list"
        told = case["answers"].get(call, case["answers"].get("*"))
        if "raw" in told:
            return web.Response(body=(told["raw"] * told.get("times", 1)).encode(), content_type="application/json")
        return web.json_response({"jsonrpc": "2.0", "id": 1, **told})

    application = web.Application()
    application.add_routes([web.post("/ubus", answer)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with openwrt(f"http://127.0.0.1:{runner.addresses[0][1]}") as driver:
            begun = time.monotonic()
            with pytest.raises(DeviceUnavailable) as caught:
                await driver.read()
            assert time.monotonic() - begun < 3
    finally:
        await runner.cleanup()
    assert caught.value.cause == case["cause"]
    assert case["says"] in str(caught.value)
    assert len(str(caught.value)) < 400


@given(
    st.integers(0, 2**64),
    st.integers(0, 2**64),
    st.integers(0, 2**64),
    st.integers(0, 2**64),
    st.floats(0, 1e6),
    st.sampled_from([32, 64]),
)
def test_no_counter_makes_a_negative_or_a_fabulous_rate(
    a: int, b: int, c: int, d: int, later: float, bits: int
) -> None:
    before = Counted(at=0.0, received=a % 2**bits, sent=b % 2**bits, bits=bits)
    now = Counted(at=later, received=c % 2**bits, sent=d % 2**bits, bits=bits)
    assert all(0 <= float(str(value)) <= 20_000_000 for value in rates(before, now).values())


def test_a_counter_of_32_bits_may_wrap_and_one_that_was_set_anew_gives_no_rate() -> None:
    wrapped = rates(
        Counted(at=0, received=2**32 - 1000, sent=0, bits=32), Counted(at=10, received=249_000, sent=0, bits=32)
    )
    assert wrapped == {"Traffic/Received": 200.0, "Traffic/Sent": 0.0}
    assert rates(Counted(at=0, received=10**9, sent=0), Counted(at=10, received=5, sent=0)) == {}
    assert rates(None, Counted(at=10, received=5, sent=0)) == {}


def test_every_profile_is_valid_and_the_schema_is_the_one_that_is_enforced() -> None:
    schema = json.loads((PROFILES / "snmp_profile.schema.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in schema.items() if key != "$schema"} == Profile.model_json_schema()
    for path in PROFILES.glob("*.yaml"):
        assert load_profile(path).source
        jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)


def test_a_wrong_profile_names_file_and_key(tmp_path: Path) -> None:
    wrong = tmp_path / "p.yaml"
    wrong.write_text("name: x\nsource: y\nclients: {oid: clients}\n", encoding="utf-8")
    with pytest.raises(DeviceMisconfigured, match=r"p\.yaml: clients\.oid"):
        load_profile(wrong)


async def test_what_answers_is_reachable_and_what_does_not_says_why() -> None:
    async with openwrt_hotspot.serving(router()) as url:
        port = int(url.rsplit(":", 1)[1])
        driver = Reachability(
            kind=Kind.NETWORK_DEVICE, host="127.0.0.1", tcp_port=port, timeout=1.0, clock=SystemClock()
        )
        values = await told(driver)
        driver._may_ping = False
        connected = await told(driver)
    assert values["Reach/Loss"] == connected["Reach/Loss"] == 0
    assert 0 <= connected["Reach/RoundTrip"] < 500
    with pytest.raises(DeviceUnavailable) as caught:
        await driver.read()
    assert caught.value.cause is Cause.REFUSED
    driver._tcp_port = None
    with pytest.raises(DeviceMisconfigured, match="give a port"):
        await driver.read()


async def test_a_name_nobody_knows_is_unreachable() -> None:
    driver = Reachability(kind=Kind.NETWORK_DEVICE, host="nobody.invalid", tcp_port=1, timeout=5.0, clock=SystemClock())
    with pytest.raises(DeviceUnavailable) as caught:
        await driver.read()
    assert caught.value.cause in {Cause.UNREACHABLE, Cause.SILENT}


@pytest.mark.foreign
@pytest.mark.skipif(not Path("/usr/sbin/snmpd").exists(), reason="snmpd is not installed (make test installs it)")
@pytest.mark.parametrize("version", ["2c", "3"])
async def test_the_agent_that_everybody_runs_is_read_by_the_same_driver(tmp_path: Path, version: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "snmpd.conf"
    config.write_text(
        f"agentAddress udp:127.0.0.1:{port}\nrocommunity hamlet 127.0.0.1\n"
        "createUser box SHA authpass1 AES privpass1\nrouser box priv\n",
        encoding="utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        "/usr/sbin/snmpd", "-f", "-Lf", str(tmp_path / "log"), "-C", "-c", str(config), "-p", str(tmp_path / "pid"),
        env={"SNMP_PERSISTENT_DIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin", "MIBS": ""},
    )  # fmt: skip
    try:
        driver = SnmpHotspot(
            host="127.0.0.1",
            port=port,
            login=V2C if version == "2c" else V3,
            profile=load_profile(PROFILES / "generic.yaml"),
            uplink_interface="lo",
            timeout=6.0,
            clock=SystemClock(),
        )
        async with asyncio.timeout(30):
            while True:
                try:
                    async with driver:
                        values = await told(driver)
                    break
                except DeviceUnavailable:
                    await asyncio.sleep(0.2)
    finally:
        process.terminate()
        await process.wait()
    assert "Linux" in values["Device/Model"]
    assert values["Uplink/OK"] is True
    assert 0 < values["Device/Memory"] <= 100


@pytest.mark.foreign
@pytest.mark.skipif(shutil.which("snmpget") is None, reason="net-snmp's tools are not installed (make test does)")
async def test_net_snmps_tools_read_the_simulated_agent(tmp_path: Path) -> None:
    environment = {"SNMP_PERSISTENT_DIR": str(tmp_path), "MIBS": "", "PATH": "/usr/bin"}

    async def run(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environment
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()

    async with snmp_hotspot.serving(agent()) as (host, port):
        where = f"{host}:{port}"
        walked = await run("snmpbulkwalk", "-v2c", "-c", "hamlet", "-On", where, "1.3.6.1.2.1.31.1.1.1.1")
        v3 = ("-v3", "-l", "authPriv", "-u", "box", "-a", "SHA", "-A", "authpass1", "-x", "AES", "-X", "privpass1")
        got = await run("snmpget", *v3, "-On", where, "1.3.6.1.2.1.1.1.0")
    assert [line.rsplit(" ", 1)[1] for line in walked.splitlines()] == ['"lo"', '"eth0"', '"ath0"', '"ath1"']
    assert "SIM AP-3" in got


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (make test installs it)")
async def test_curl_logs_in_to_the_simulated_router() -> None:
    question = {"jsonrpc": "2.0", "id": 1, "method": "call"}
    login = {**question, "params": ["0" * 32, "session", "login", {"username": "box", "password": "demo"}]}
    async with openwrt_hotspot.serving(router()) as url:

        async def ask(body: Any) -> Any:
            process = await asyncio.create_subprocess_exec(
                "curl", "-s", "-d", json.dumps(body), f"{url}/ubus", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            return json.loads(out)

        session = (await ask(login))["result"][1]["ubus_rpc_session"]
        board = await ask({**question, "params": [session, "system", "board", {}]})
        denied = await ask({**question, "params": ["f" * 32, "system", "board", {}]})
    assert board["result"][1]["model"] == "SIM AP-2"
    assert denied["error"]["code"] == -32002
