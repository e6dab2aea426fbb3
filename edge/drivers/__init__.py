"""One file per protocol family; which one a device needs is decided here and nowhere else."""

from pathlib import Path
from typing import TypeVar, assert_never

from contract.clock import Clock
from edge.broker import Server
from edge.config import secret
from edge.device_configs import (
    DeviceConfig,
    IpSpeakerConfig,
    LocalOutputConfig,
    ModbusSensorConfig,
    MqttSensorConfig,
    OnvifCameraConfig,
    OpenwrtHotspotConfig,
    ReachabilityConfig,
    SnmpHotspotConfig,
    UartSensorConfig,
)
from edge.drivers.ip_speaker import IpSpeaker
from edge.drivers.local_broker import LocalBroker
from edge.drivers.local_output import LocalOutput
from edge.drivers.modbus_bus import Bus, serial_bus, tcp_bus
from edge.drivers.modbus_sensor import ModbusSensor
from edge.drivers.mqtt_mapping import MqttMapping, load_mapping
from edge.drivers.mqtt_sensor import MqttSensor
from edge.drivers.onvif_camera import Address, OnvifCamera
from edge.drivers.openwrt_hotspot import OpenwrtHotspot
from edge.drivers.reachability import Reachability
from edge.drivers.register_map import RegisterMap, load_map
from edge.drivers.snmp_hotspot import Login, SnmpHotspot
from edge.drivers.snmp_profile import load_profile
from edge.drivers.uart_sensor import UartSensor
from edge.poller import DeviceMisconfigured, Driver
from edge.workers import Pool, Worker

FRAME_WORKERS = 2
"""Pictures are fetched two at a time: each worker holds tens of megabytes and, for a moment, a core."""


class Shared:
    """What the devices of one box share: buses, lines to local brokers, and the processes that look at cameras."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buses: dict[str, Bus] = {}
        self._brokers: dict[tuple[str, int, str | None], LocalBroker] = {}
        self.desk = Worker("edge.camera.onvif_worker", exclusive=False)
        self.frames = Pool("edge.camera.frame_worker", FRAME_WORKERS)

    def bus(self, config: ModbusSensorConfig) -> Bus:
        """Return the bus that a device names."""
        if config.line not in self._buses:
            self._buses[config.line] = (
                serial_bus(config.port, config.baud, self._clock)
                if config.port is not None
                else tcp_bus(str(config.host), config.tcp_port, self._clock)
            )
        return self._buses[config.line]

    def broker(self, config: MqttSensorConfig) -> LocalBroker:
        """Return the line to the broker that a device names."""
        key = (config.host, config.port, config.username)
        if key not in self._brokers:
            server = Server(
                host=config.host,
                port=config.port,
                username=config.username,
                password=_secret(config.password_file),
            )
            self._brokers[key] = LocalBroker(server, self._clock)
        return self._brokers[key]

    async def end(self) -> None:
        """Close ports and lines, and end the processes."""
        for bus in self._buses.values():
            bus.close()
        for broker in self._brokers.values():
            broker.close()
        await self.desk.end()
        await self.frames.end()


def driver_for(config: DeviceConfig, shared: Shared, clock: Clock) -> Driver:
    """Return the driver a device needs.

    Raises DeviceMisconfigured where a file of the configuration is wrong. Touches no device.
    """
    match config:
        case ModbusSensorConfig():
            return ModbusSensor(
                shared.bus(config),
                slave=config.slave,
                mapping=_of_kind(config, load_map(config.register_map)),
                timeout=config.timeout_seconds,
                clock=clock,
            )
        case UartSensorConfig():
            return UartSensor(model=config.model, port=config.port, timeout=config.timeout_seconds, clock=clock)
        case MqttSensorConfig():
            return MqttSensor(
                shared.broker(config),
                topic=config.topic,
                mapping=_of_kind(config, load_mapping(config.mapping)),
                silent_after=config.silent_after_seconds,
                timeout=config.timeout_seconds,
                clock=clock,
            )
        case IpSpeakerConfig():
            return IpSpeaker(
                url=config.url,
                username=config.username,
                password=secret(config.password_file),
                codec=config.codec,
                timeout=config.timeout_seconds,
                clock=clock,
                multicast=config.multicast,
                interface=config.interface,
            )
        case LocalOutputConfig():
            return LocalOutput(
                alsa_device=config.alsa_device,
                relay=config.relay,
                warm_up=config.warm_up_seconds,
                timeout=config.timeout_seconds,
                clock=clock,
            )
        case OnvifCameraConfig():
            return OnvifCamera(
                config.id,
                Address(url=config.url, stream=config.stream_url, snapshot=config.snapshot_url),
                username=config.username,
                password=_secret(config.password_file),
                serial=config.serial,
                events=config.events,
                timeout=config.timeout_seconds,
                desk=shared.desk,
                frames=shared.frames,
                clock=clock,
            )
        case OpenwrtHotspotConfig():
            return OpenwrtHotspot(
                url=config.url,
                username=config.username,
                password=secret(config.password_file),
                uplink=config.uplink,
                timeout=config.timeout_seconds,
                clock=clock,
            )
        case SnmpHotspotConfig():
            return SnmpHotspot(
                host=config.host,
                port=config.port,
                login=_snmp_login(config),
                profile=load_profile(config.profile),
                uplink_interface=config.uplink_interface,
                timeout=config.timeout_seconds,
                clock=clock,
            )
        case ReachabilityConfig():
            return Reachability(
                kind=config.kind,
                host=config.host,
                tcp_port=config.tcp_port,
                timeout=config.timeout_seconds,
                clock=clock,
            )
        case _:
            assert_never(config)


Mapped = TypeVar("Mapped", RegisterMap, MqttMapping)


def _of_kind(config: ModbusSensorConfig | MqttSensorConfig, mapping: Mapped) -> Mapped:
    """Return the mapping; raise DeviceMisconfigured where it is for another kind of device."""
    if mapping.kind != config.kind:
        raise DeviceMisconfigured(
            f'devices "{config.id}": its kind is {config.kind}, but {mapping.name!r} is for a {mapping.kind}'
        )
    return mapping


def _secret(file: Path | None) -> str | None:
    return None if file is None else secret(file)


def _snmp_login(config: SnmpHotspotConfig) -> Login:
    if config.version == "2c":
        return Login(community=_secret(config.community_file))
    return Login(
        username=config.username,
        auth=(config.auth_protocol, _secret(config.auth_password_file) or ""),
        privacy=(config.privacy_protocol, _secret(config.privacy_password_file) or ""),
    )
