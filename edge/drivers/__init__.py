"""One file per protocol family; which one a device needs is decided here and nowhere else."""

from typing import assert_never

from contract.clock import Clock
from edge.config import DeviceConfig, IpSpeakerConfig, ModbusSensorConfig, secret
from edge.drivers.ip_speaker import IpSpeaker
from edge.drivers.modbus_sensor import ModbusSensor, SerialLine, load_map


def driver_for(config: DeviceConfig, lines: dict[str, SerialLine], clock: Clock) -> ModbusSensor | IpSpeaker:
    """Return the driver a device needs; `lines` holds the serial lines that devices share.

    Raises DeviceMisconfigured where a register map is wrong. Touches no device.
    """
    match config:
        case ModbusSensorConfig():
            line = lines.setdefault(config.port, SerialLine(config.port, config.baud))
            return ModbusSensor(
                line,
                slave=config.slave,
                mapping=load_map(config.register_map),
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
            )
        case _:
            assert_never(config)
