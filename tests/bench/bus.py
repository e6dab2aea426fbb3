"""How fast one serial line is polled: eight probes on 9600 baud, all alive, then one of them dead.

The reference is what the wire allows: the bits of question, answer and gaps at that speed, and nothing else.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

from contract.clock import SystemClock
from edge.drivers.modbus_bus import Bus, serial_bus
from edge.drivers.modbus_sensor import ModbusSensor
from edge.drivers.register_map import load_map
from edge.poller import DeviceUnavailable
from simulators.faults import Fault, Faults
from simulators.modbus_probe import Probe, bus

BAUD = 9600
SLAVES = 8
TIMEOUT = 1.0
MAP = load_map(Path(__file__).parents[2] / "firmware_configs" / "register_maps" / "generic-water-probe.yaml")
BITS_A_BYTE = 10
QUESTION_BYTES = 8
ANSWER_BYTES = 5 + 2 * sum(count for _, count in MAP.questions)
GAP = 3.5 * 11 / BAUD


def main() -> None:
    """Measure, and print each figure as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure each case")
    asyncio.run(polls(parser.parse_args().seconds))


async def polls(seconds: float) -> None:
    """Print polls a second, and the longest wait of a living probe, with all alive and with one dead."""
    probes = [
        Probe(id=f"probe-{slave}", slave=slave, seed=7, faults=Faults([], time.monotonic), now=time.time)
        for slave in range(1, SLAVES + 1)
    ]
    async with bus(probes, baud=BAUD, paced=True) as simulated:
        for name, fault in (("all-alive", None), ("one-dead", Fault.MAINS_LOST)):
            probes[0].faults.forced = fault
            line = serial_bus(simulated.master_path, BAUD, SystemClock())
            until = time.monotonic() + seconds
            told = await asyncio.gather(*(_keep_asking(line, one.slave, until) for one in probes))
            line.close()
            _say(name, sum(done for done, _ in told) / seconds, max(wait for _, wait in told[1:]), seconds)


async def _keep_asking(line: Bus, slave: int, until: float) -> tuple[int, float]:
    """Return how many reads succeeded and the longest, in seconds."""
    sensor = ModbusSensor(line, slave=slave, mapping=MAP, timeout=TIMEOUT, clock=SystemClock())
    done, longest = 0, 0.0
    while (before := time.monotonic()) < until:
        try:
            await sensor.read()
        except DeviceUnavailable:
            await asyncio.sleep(0.2)  # as a poller would, and more often than any
            continue
        done += 1
        longest = max(longest, time.monotonic() - before)
    return done, longest


def _say(name: str, polls_a_second: float, longest: float, seconds: float) -> None:
    wire = 1 / ((QUESTION_BYTES + ANSWER_BYTES) * BITS_A_BYTE / BAUD + GAP)
    told = {
        "bench": f"bus/{name}",
        "figure": round(polls_a_second, 2),
        "unit": "polls/s",
        "reference": round(wire, 2),
        "ratio": round(polls_a_second / wire, 2),
        "detail": f"{SLAVES} probes, {BAUD} baud, {seconds:.0f} s; the longest poll of a living one took "
        f"{longest:.2f} s; reference: the bits on the wire and the gaps",
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
