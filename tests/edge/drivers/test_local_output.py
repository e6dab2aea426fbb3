"""The box's own sound output, heard through an ALSA device that writes what it is given into a file."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from contract.catalog import STATE, Cause
from contract.clock import Clock, SystemClock
from edge.drivers import local_output
from edge.drivers.local_output import LocalOutput
from edge.poller import DeviceUnavailable

ALSA = Path("/usr/share/alsa/alsa.conf")
SECOND = b"\x10\x27" * 48_000
"""A second of samples of 10,000."""

pytestmark = pytest.mark.skipif(not ALSA.exists(), reason="ALSA's configuration is not installed: libasound2-data")


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an ALSA device `horn` and return the file that has what was played on it."""
    file = tmp_path / "heard.raw"
    config = tmp_path / "asound.conf"
    config.write_text(f'<{ALSA}>\npcm.horn {{ type file slave.pcm null file "{file}" format raw }}\n')
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(config))
    return file


@pytest.fixture
def relay(tmp_path: Path) -> Path:
    file = tmp_path / "gpio17"
    file.write_text("1\n")
    return file


def output(device: str, relay: Path | None = None, *, clock: Clock | None = None, **change: Any) -> LocalOutput:
    told = {"warm_up": 0.0, "timeout": 5.0, **change}
    return LocalOutput(alsa_device=device, relay=relay, clock=clock or SystemClock(), **told)


def samples(file: Path) -> Any:
    return np.frombuffer(file.read_bytes(), dtype="<i2")


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "edge.audio_worker" in one.cmdline()]


async def test_what_is_played_is_what_the_card_gets_as_loud_as_ordered(heard: Path, relay: Path) -> None:
    driver = output("horn", relay)
    async with driver.sounding(volume=50) as sink:
        assert relay.read_text().strip() == "1"
        await sink.write(SECOND[:1001])
        assert sink.first_at is not None
        await sink.write(SECOND[1001:40_000])
        told = {one.metric: one.value for one in await driver.read()}
        assert relay.read_text().strip() == "1", "to be asked how it is must not silence it"
    assert relay.read_text().strip() == "0"
    assert len(samples(heard)) == 20_000
    assert set(samples(heard)) == {5000}
    assert told == {STATE: "ok", "Playback/State": "playing", "Audio/Volume": 50}
    assert not children()


async def test_sound_goes_to_the_card_in_time_and_little_ahead(heard: Path, clock: Any, eventually: Any) -> None:
    driver = output("horn", clock=clock)
    async with driver.sounding(volume=100) as sink:
        writing = asyncio.create_task(sink.write(SECOND))
        for tenth in range(3, 11):
            await eventually(lambda: sink._sent >= tenth * 9600)  # noqa: B023
            await clock.settle()
            assert sink._sent == tenth * 9600, "three tenths at once, then each in its turn"
            await clock.advance(0.1)
        await writing
    assert len(samples(heard)) == 48_000


async def test_the_amplifier_is_warm_before_the_first_word(
    heard: Path, relay: Path, clock: Any, eventually: Any
) -> None:
    relay.write_text("0")
    driver = output("horn", relay, clock=clock, warm_up=2.0)

    async def play() -> None:
        async with driver.sounding(volume=100) as sink:
            await sink.write(SECOND[:4800])

    playing = asyncio.create_task(play())
    await eventually(lambda: relay.read_text() == "1")
    await clock.advance(1.9)
    assert not len(samples(heard)), "it is still warming up"
    await clock.advance(0.2)
    await eventually(playing.done)
    await playing
    assert len(samples(heard)) == 2400


async def test_the_amplifier_is_off_again_when_playing_breaks_off(heard: Path, relay: Path) -> None:
    driver = output("horn", relay)
    with pytest.raises(RuntimeError):
        async with driver.sounding(volume=100) as sink:
            await sink.write(SECOND[:4800])
            raise RuntimeError
    assert relay.read_text().strip() == "0"
    assert not children()


async def test_a_stop_silences_card_and_amplifier_at_once(heard: Path, relay: Path, eventually: Any) -> None:
    driver = output("horn", relay)

    async def play() -> None:
        async with driver.sounding(volume=100) as sink:
            await sink.write(SECOND * 60)

    playing = asyncio.create_task(play())
    await eventually(lambda: heard.exists() and len(samples(heard)))
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert relay.read_text().strip() == "0"
    await eventually(lambda: not children())
    async with driver.sounding(volume=100) as sink:
        await sink.write(SECOND[:4800])


async def test_a_player_that_is_killed_is_silence_and_the_amplifier_is_off(heard: Path, relay: Path) -> None:
    driver = output("horn", relay)
    with pytest.raises(DeviceUnavailable) as caught:
        async with driver.sounding(volume=100) as sink:
            await sink.write(SECOND[:4800])
            os.kill(children()[0].pid, signal.SIGKILL)
            await sink.write(SECOND * 60)
    assert caught.value.cause is Cause.SILENT
    assert relay.read_text().strip() == "0"


HANGING = "import time, sys; print('ready', flush=True); {after}; time.sleep(600)"


@pytest.mark.parametrize(
    ("program", "amount"),
    [
        ("import time; time.sleep(600)", 1),
        (HANGING.format(after="pass"), 1),
        (HANGING.format(after="print('playing', flush=True)"), 5),
        (HANGING.format(after="print('playing', flush=True)"), 0),
    ],
    ids=["at the beginning", "at the first sound", "while it sounds", "at the end"],
)
async def test_a_player_that_hangs_is_silent_in_bounded_time(
    relay: Path, monkeypatch: pytest.MonkeyPatch, program: str, amount: int
) -> None:
    monkeypatch.setattr(local_output, "WORKER", (sys.executable, "-c", program))
    relay.write_text("0")
    driver = output("horn", relay, timeout=0.4)
    with pytest.raises(DeviceUnavailable) as caught:
        async with driver.sounding(volume=100) as sink:
            await sink.write(SECOND * amount)
    assert caught.value.cause is Cause.SILENT
    assert relay.read_text().strip() == "0"


async def test_a_card_that_is_not_there_and_a_relay_that_is_not_are_not_found(heard: Path, tmp_path: Path) -> None:
    for driver in (output("nosuch"), output("horn", tmp_path / "gpio99")):
        async with driver:
            with pytest.raises(DeviceUnavailable) as caught:
                await driver.read()
        assert caught.value.cause is Cause.NOT_FOUND
        with pytest.raises(DeviceUnavailable) as caught:
            async with driver.sounding(volume=50):
                raise AssertionError("there is nothing to sound")
        assert caught.value.cause is Cause.NOT_FOUND
    assert not (tmp_path / "gpio99").exists()


async def test_a_card_that_another_program_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = "print('busy cannot open audio device hw:0 (Device or resource busy)')"
    monkeypatch.setattr(local_output, "WORKER", (sys.executable, "-c", busy))
    with pytest.raises(DeviceUnavailable, match="resource busy") as caught:
        async with output("hw:0") as driver:
            await driver.read()
    assert caught.value.cause is Cause.REFUSED


async def test_a_relay_that_does_not_obey_is_said_and_nothing_sounds(heard: Path) -> None:
    driver = output("horn", Path("/dev/zero"))
    with pytest.raises(DeviceUnavailable, match="reads") as caught:
        async with driver.sounding(volume=50):
            raise AssertionError("without an amplifier nobody hears it")
    assert caught.value.cause is Cause.REFUSED


async def test_a_box_that_lost_its_power_while_it_sounded_switches_the_amplifier_off(heard: Path, relay: Path) -> None:
    assert relay.read_text().strip() == "1"
    async with output("horn", relay) as driver:
        found = {one.metric: one.value for one in await driver.read()}
    assert relay.read_text().strip() == "0"
    assert found == {STATE: "ok", "Playback/State": "idle"}


async def test_a_card_is_looked_for_now_and_then_not_at_each_read(
    heard: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with output("horn", clock=clock) as driver:
        await driver.read()
        monkeypatch.setattr(local_output, "WORKER", (sys.executable, "-c", "print('not_found gone')"))
        await driver.read()
        await clock.advance(local_output.CHECK_EVERY)
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.NOT_FOUND


async def test_a_second_programme_does_not_break_into_the_one_that_sounds(heard: Path) -> None:
    driver = output("horn")
    async with driver.sounding(volume=50) as sink:
        with pytest.raises(DeviceUnavailable, match="already sounding"):
            async with driver.sounding(volume=50):
                pass
        await sink.write(SECOND[:4800])
