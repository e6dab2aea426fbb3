"""A whole hamlet, or several, of simulated devices, running together."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from simulators import ip_speaker, modbus_probe, mqtt_sensor, openwrt_hotspot, power_supply, snmp_hotspot, uart_sensor
from simulators.camera import camera
from simulators.camera.device import Camera
from simulators.config import Config, HamletConfig, ProbeConfig
from simulators.faults import FaultEntry, Faults

Found = dict[str, dict[str, object]]


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[dict[str, object]]:
    """Run everything that a file describes; yield where each thing is to be found, by its id."""
    found: Found = {}
    async with AsyncExitStack() as stack:
        for hamlet in config.hamlets:
            await _Hamlet(config, hamlet, stack, found).start()
        yield {"ready": True, "devices": found, "recordings": str(config.recordings)}


class _Hamlet:
    """Starts the devices of one hamlet, each in the stack, and notes where it is."""

    def __init__(self, config: Config, hamlet: HamletConfig, stack: AsyncExitStack, found: Found) -> None:
        self._config = config
        self._hamlet = hamlet
        self._stack = stack
        self._found = found

    async def start(self) -> None:
        hamlet, enter = self._hamlet, self._stack.enter_async_context
        if hamlet.power_supply is not None:
            supply = power_supply.PowerSupply(hamlet.power_supply, self._faults([]))
            self._note(f"power of {hamlet.name}", folder=str(await enter(power_supply.serving(supply))))
        for line in hamlet.buses:
            await enter(modbus_probe.bus(self._probes(line.probes), link=line.link, baud=line.baud, paced=line.paced))
            for one in line.probes:
                self._note(one.id, port=str(line.link), slave=one.slave)
        for gateway in hamlet.gateways:
            probes = self._probes(gateway.probes)
            host, port = await enter(modbus_probe.gateway(probes, host=gateway.host, port=gateway.port))
            for one in gateway.probes:
                self._note(one.id, host=host, tcp_port=port, slave=one.slave)
        for uart in hamlet.uarts:
            sensor = uart_sensor.Particulates(
                id=uart.id, model=uart.model, seed=self._config.seed, faults=self._faults(uart.faults), now=time.time
            )
            await enter(uart_sensor.serving(sensor, link=uart.link))
            self._note(uart.id, port=str(uart.link))
        await self._start_mqtt_sensors()
        await self._start_servers()

    async def _start_mqtt_sensors(self) -> None:
        broker = self._config.broker
        for one in self._hamlet.mqtt_sensors if broker is not None else []:
            station = mqtt_sensor.Station(
                id=one.id,
                shape=one.shape,
                layout=one.layout,
                topic=one.topic,
                seed=self._config.seed,
                faults=self._faults(one.faults),
                now=time.time,
                every=one.every_seconds,
            )
            assert broker is not None  # noqa: S101  # there are none without it
            await self._stack.enter_async_context(
                mqtt_sensor.publishing(
                    station, host=broker.host, port=broker.port, username=broker.username, password=broker.password
                )
            )
            self._note(one.id, topic=one.topic)

    async def _start_servers(self) -> None:
        hamlet, enter = self._hamlet, self._stack.enter_async_context
        for speaker in hamlet.speakers:
            horn = ip_speaker.Speaker(
                id=speaker.id,
                user=speaker.user,
                password=speaker.password,
                recordings=self._config.recordings,
                faults=self._faults(speaker.faults),
                volume=speaker.volume,
                host=speaker.host,
                battery=speaker.battery,
                room_metres=speaker.room_metres,
                seed=self._config.seed,
            )
            self._note(speaker.id, url=await enter(ip_speaker.serving(horn, port=speaker.port)))
        for one in hamlet.cameras:
            seen = Camera(
                id=one.id,
                user=one.user,
                password=one.password,
                faults=self._faults(one.faults),
                codec=one.codec,
                host=one.host,
                onvif=one.onvif,
            )
            at = await enter(camera.serving(seen, port=one.port, rtsp_port=one.rtsp_port))
            self._note(one.id, url=at.url, stream_url=at.stream_url, snapshot_url=at.snapshot_url)
        for router in hamlet.routers:
            spot = openwrt_hotspot.Router(
                id=router.id,
                user=router.user,
                password=router.password,
                faults=self._faults(router.faults),
                seed=self._config.seed,
                naming=router.naming,
                host=router.host,
            )
            self._note(router.id, url=await enter(openwrt_hotspot.serving(spot, port=router.port)))
        for asked in hamlet.snmp_hotspots:
            agent = snmp_hotspot.Agent(
                id=asked.id,
                community=asked.community,
                user=asked.user,
                auth_password=asked.auth_password,
                privacy_password=asked.privacy_password,
                faults=self._faults(asked.faults),
                seed=self._config.seed,
                host=asked.host,
            )
            host, port = await enter(snmp_hotspot.serving(agent, port=asked.port))
            self._note(asked.id, host=host, port=port)

    def _probes(self, probes: Sequence[ProbeConfig]) -> list[modbus_probe.Probe]:
        return [
            modbus_probe.Probe(
                id=one.id,
                slave=one.slave,
                seed=self._config.seed,
                faults=self._faults(one.faults),
                now=time.time,
                layout=one.layout,
                first=one.first,
                states=one.states,
                apart=one.apart_seconds,
                told=one.answers,
            )
            for one in probes
        ]

    def _faults(self, own: Sequence[FaultEntry]) -> Faults:
        """Return a device's own faults and, after them, those of the whole hamlet."""
        quiet = self._config.quiet_file
        return Faults(
            [*own, *self._hamlet.faults],
            time.monotonic,
            quiet=quiet.exists if quiet is not None else lambda: False,
        )

    def _note(self, name: str, **where: object) -> None:
        self._found[name] = {"hamlet": self._hamlet.name, **where}


def write_status(path: Path, status: dict[str, object]) -> None:
    """Write the status file in one piece."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(status, ensure_ascii=False), encoding="utf-8")
    aside.replace(path)
