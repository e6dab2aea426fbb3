"""The box itself: how busy, full, worn and warm it is, what feeds it, its way out, and how good its clock is."""

import asyncio
import ctypes
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from contract.catalog import CATALOG, MAINS, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample, Value

log = logging.getLogger(__name__)

MOST_FILE = 64 * 1024
SIGNAL_SECONDS = 600.0
"""A modem's signal that is older than this is no news any more."""

WEAR_STEP = 10
"""Percent of its life that an eMMC's estimate counts in; 11 steps mean that it lasted longer than it was made for."""

_ALWAYS = ("Box/CPU", "Box/Memory", "Box/Disk", "Box/ClockSynchronised", "Agent/Version")
_NO_ERROR_STATES, _TIME_ERROR = 0, 5
_ROUTE_UP, _ROUTE_REJECT = 0x1, 0x200
_BATTERIES = {"battery", "ups"}


class Box:
    """A Driver for the machine the agent runs on: reports what this machine had when the agent started.

    `folder` tells which disk counts, `power_supply` what feeds the box (None: nothing tells), `modem_signal` is a file
    into which something else writes the modem's signal in dBm; `root` is where /proc and /sys are.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        power_supply: Path | None = Path("/sys/class/power_supply"),
        modem_signal: Path | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._root = root
        self._version = _version()
        self._mains: bool | None = None
        self._complained: set[str] = set()
        self._looking: asyncio.Future[dict[str, Value]] | None = None
        psutil.cpu_percent()  # the first call only starts the measurement
        self._extras: Mapping[str, Callable[[], Value | None]] = dict(self._found_here(power_supply, modem_signal))
        self.metrics: Sequence[Metric] = tuple(
            one for one in CATALOG[Kind.EDGE_NODE].metrics if one.name in {*_ALWAYS, "Box/ClockError", *self._extras}
        )

    @property
    def mains(self) -> bool | None:
        """Return whether the box had mains at its last read; None where it cannot tell."""
        return self._mains

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        """Return what can be read; what is garbage is left out, and said once in the log."""
        # A gauge behind a bus that hangs makes its file hang: one look waits then, and no second one is begun.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        values = await asyncio.shield(self._looking)
        mains = values.get(MAINS)
        self._mains = mains if isinstance(mains, bool) else None
        at = self._clock.now_ms()
        return [Sample(metric=name, at=at, value=value) for name, value in values.items()]

    def _look(self) -> dict[str, Value]:
        synchronised, error = kernel_clock()
        values: dict[str, Value] = {
            "Box/CPU": psutil.cpu_percent(),
            "Box/Memory": psutil.virtual_memory().percent,
            "Box/Disk": psutil.disk_usage(str(self._folder)).percent,
            "Box/ClockSynchronised": synchronised,
            "Agent/Version": self._version,
        }
        if error is not None:
            values["Box/ClockError"] = error
        for name, look in self._extras.items():
            try:
                value = look()
            except (OSError, ValueError) as exc:
                if name not in self._complained:
                    self._complained.add(name)
                    log.warning("%s is left out: %s", name, exc)
                continue
            self._complained.discard(name)
            if value is not None:
                values[name] = value
        return values

    def _found_here(
        self, power_supply: Path | None, modem_signal: Path | None
    ) -> Iterator[tuple[str, Callable[[], Value | None]]]:
        supplies = sorted(power_supply.glob("*/")) if power_supply is not None else []
        sources = [one / "online" for one in supplies if (one / "online").exists() and _kind(one) not in _BATTERIES]
        batteries = [
            one / "voltage_now"
            for one in supplies
            if (one / "voltage_now").exists() and (_kind(one) in _BATTERIES or not (one / "online").exists())
        ]
        wear = sorted((self._root / "sys/block").glob("*/device/life_time"))
        zones = sorted((self._root / "sys/class/thermal").glob("thermal_zone*/temp"))
        routes = self._root / "proc/net/route", self._root / "proc/net/ipv6_route"
        if sources:
            yield MAINS, lambda: any(_number(one, 0, 2) for one in sources)
        if batteries:
            # With several, the one that will be empty first.
            yield "Power/BatteryV", lambda: min(_number(one, 0, 1e9) for one in batteries) / 1e6
        if wear:
            yield "Box/DiskWear", lambda: worn([_text(one) for one in wear])
        if zones:
            yield "Box/Temperature", lambda: _hottest(zones)
        if routes[0].exists():
            yield "Uplink/Interface", lambda: uplink(*map(_text_if_there, routes))
        if modem_signal is not None:
            yield "Modem/Signal", lambda: self._signal(modem_signal)

    def _signal(self, file: Path) -> Value | None:
        age = self._clock.now_ms() / 1000 - file.stat().st_mtime
        return _number(file, -150, 0) if age < SIGNAL_SECONDS else None


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`; the rest only keeps its room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("rest", ctypes.c_char * 512),
    )


def kernel_clock() -> tuple[bool, float | None]:
    """Return whether some time source keeps the kernel's clock, and the error that source estimates (seconds).

    None where nobody estimates it: an unsynchronised kernel gives a constant, and simple time clients give 0.
    """
    told = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).ntp_adjtime(ctypes.byref(told))
    except (OSError, AttributeError):
        return False, None
    synchronised = isinstance(state, int) and _NO_ERROR_STATES <= state < _TIME_ERROR
    return synchronised, told.esterror / 1e6 if synchronised and told.esterror > 0 else None


def worn(life_times: Sequence[str]) -> Value | None:
    """Return how much of its life the most worn disk has behind it (%), at most; 110 is more than it was made for.

    Takes what eMMC drivers give, `0x01 0x02`: tens of percent for each kind of memory, 0 where it does not know.
    """
    steps = [int(word, 16) for text in life_times for word in text.split()]
    if not steps or not all(0 <= one <= 11 for one in steps):
        raise ValueError(f"life_time {life_times!r} is no estimate")
    return float(max(steps) * WEAR_STEP) if any(steps) else None


def uplink(ipv4: str, ipv6: str) -> str:
    """Return the interface of the default route, "none" where there is none; takes the kernel's two tables of routes.

    IPv4 goes before: IPv6 tells where IPv4 has no way out.
    """
    ways: list[tuple[int, int, str]] = []
    for line in ipv4.splitlines()[1:]:
        interface, destination, _, flags, _, _, metric, mask, *_ = line.split()
        if int(destination, 16) == int(mask, 16) == 0 and _usable(int(flags, 16)):
            ways.append((4, int(metric), interface))
    for line in ipv6.splitlines():
        destination, prefix, _, _, _, metric, _, _, flags, interface = line.split()
        if int(destination, 16) == int(prefix, 16) == 0 and _usable(int(flags, 16)) and interface != "lo":
            ways.append((6, int(metric, 16), interface))
    interface = min(ways)[2] if ways else "none"
    if not interface.isprintable() or len(interface) > 15:
        raise ValueError(f"{interface[:50]!r} is no interface")
    return interface


def _usable(flags: int) -> bool:
    return bool(flags & _ROUTE_UP) and not flags & _ROUTE_REJECT


def _hottest(zones: Sequence[Path]) -> float:
    found: list[float] = []
    reasons: list[str] = []
    for one in zones:
        try:
            found.append(_number(one, -60_000, 200_000) / 1000)
        except (OSError, ValueError) as exc:
            # Zones of parts that are asleep answer with errors.
            reasons.append(str(exc))
    if not found:
        raise ValueError("; ".join(reasons)[:200])
    return max(found)


def _kind(supply: Path) -> str:
    try:
        return _text(supply / "type").lower()
    except (OSError, ValueError):
        return ""


def _number(file: Path, least: float, most: float) -> float:
    text = _text(file)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ValueError(f"{file} says {text[:50]!r}")
    return number


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        return opened.read(MOST_FILE).decode("ascii").strip()


def _text_if_there(file: Path) -> str:
    return _text(file) if file.exists() else ""


def _version() -> str:
    try:
        return version("smart-hamlet")
    except PackageNotFoundError:
        return "unknown"
