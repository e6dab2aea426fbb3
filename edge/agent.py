"""The whole agent: opens what the configuration names, lets it run together, and ends it in order."""

import asyncio
import fcntl
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from contract.catalog import ONLINE, Kind
from contract.clock import Clock, kernel_synchronised
from contract.metrics import Sample, Timing
from contract.positions import NODE_STREAM
from edge import announcer, sender, status, uplink
from edge.audio_cache import AudioCache
from edge.box_clock import BoxClock
from edge.broker import Server
from edge.command_journal import CommandJournal
from edge.commands import Commands
from edge.config import BroadcastConfig, BrokerConfig, Config, ConfigRefused, secret
from edge.delivery_log import DeliveryLog
from edge.device_configs import DeviceConfig, ModbusSensorConfig, OnvifCameraConfig
from edge.drivers import FRAME_WORKERS, Shared, driver_for
from edge.drivers.box import Box
from edge.drivers.ip_speaker import IpSpeaker
from edge.drivers.local_output import LocalOutput
from edge.health import Rhythm
from edge.poller import DeviceMisconfigured, Driver, Poller
from edge.presence import Place
from edge.topology import Topology
from edge.trust import Anchor

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
STATUS_EVERY = 2.0
RESTART_SECONDS = 30.0
"""Until a poller that crashed runs again."""

BOX_RHYTHM = Rhythm(poll=30.0, deadline=10.0, grace=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The parts that work together while the agent runs."""

    link: uplink.Uplink
    pollers: Sequence[Poller]
    topology: Topology
    voice: announcer.Announcer | None
    commands: Commands


class Agent:
    """One edge node. `run` it once; `stop` makes it poll no more, drain, say goodbye and return."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = BoxClock(clock, trusted=config.node.clock == "trusted", synchronised=kernel_synchronised)
        self._stopping = asyncio.Event()
        self._stopped = False
        self._status_fails = False

    def stop(self) -> None:
        """Ask for the end; safe to call twice."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; raise ConfigRefused where something that was configured cannot be used."""
        config, clock, chance = self._config, self._clock, random.SystemRandom()
        shared = Shared(clock)
        try:
            drivers = {one.id: driver_for(one, shared, clock) for one in config.devices}
            settings = self._uplink_settings()
        except (DeviceMisconfigured, OSError) as exc:
            raise ConfigRefused(str(exc)) from exc
        async with AsyncExitStack() as files:
            files.push_async_callback(shared.end)
            state = config.node.state_dir
            files.enter_context(_claimed(state))
            delivery_log = files.enter_context(
                DeliveryLog(state / "log", clock, budget=config.node.log_megabytes * 1_000_000)
            )
            clock.begin(delivery_log)
            journal = files.enter_context(CommandJournal(state / "journal.db"))
            speakers = {name: one for name, one in drivers.items() if isinstance(one, (IpSpeaker, LocalOutput))}
            link: uplink.Uplink

            async def record(stream: str, samples: Sequence[Sample]) -> None:
                await link.record(stream, samples)

            box = Box(state, clock, power_supply=config.node.power_supply, modem_signal=config.node.modem_signal)
            places = {one.id: Place(behind=one.behind, mains=one.mains) for one in config.devices}
            topology = Topology(places, sees_mains=lambda: box.mains, record=record, clock=clock)
            voice = self._announcer(config.broadcast, journal, speakers, record=record)

            kinds = {one.id: one.kind for one in config.devices} | {NODE_STREAM: Kind.EDGE_NODE}
            commands = Commands(journal=journal, kinds=kinds, record=record, clock=clock)

            async def on_broadcast(name: str, value: str) -> None:
                if voice is not None:
                    await voice.take(name, value)

            link = uplink.Uplink(
                settings,
                delivery_log=delivery_log,
                devices={
                    one.id: sender.DeviceBirth(kind=one.kind, metrics=drivers[one.id].metrics) for one in config.devices
                },
                clock=clock,
                hello=voice.hello if voice is not None else lambda: "",
                on_broadcast=on_broadcast,
                on_command=commands.take,
                chance=chance,
                timing=clock.timing,
            )
            if voice is not None:
                voice.say = link.say

            def poller(stream: str, driver: Driver, rhythm: Rhythm) -> Poller:
                return Poller(
                    stream,
                    driver,
                    rhythm=rhythm,
                    record=record,
                    attempted=topology.attempted,
                    clock=clock,
                    chance=chance,
                )

            pollers = [poller(one.id, drivers[one.id], _rhythm(one, config.devices)) for one in config.devices]
            pollers.append(poller(NODE_STREAM, box, BOX_RHYTHM))
            topology.ask = {one.stream: one.ask_now for one in pollers}
            commands.ask = {one.stream: one.ask for one in pollers}
            await self._run_together(
                _Running(link=link, pollers=pollers, topology=topology, voice=voice, commands=commands)
            )

    async def _run_together(self, running: _Running) -> None:
        link, voice = running.link, running.voice
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(link.run(), name="uplink")
            working = [tasks.create_task(self._poll(running.pollers), name="pollers")]
            working.append(tasks.create_task(running.commands.run(), name="commands"))
            if voice is not None:
                working.append(tasks.create_task(voice.run(), name="announcer"))
            telling = tasks.create_task(self._tell(running), name="status")
            await self._stopping.wait()
            log.info("stopping: no more polling, %d records to deliver", link.uncommitted())
            for one in working:
                one.cancel()
            await asyncio.wait(working)
            drained = await link.end(DRAIN_SECONDS)
            await sending
            telling.cancel()
            self._stopped = True
            await self._write_status(running)
            log.info("stopped; %s", "everything is delivered" if drained else "the rest waits in the log")

    async def _poll(self, pollers: Sequence[Poller]) -> None:
        await self._hold_for_clock()
        async with asyncio.TaskGroup() as tasks:
            for one in pollers:
                tasks.create_task(self._keep_polling(one), name=f"poll {one.stream or 'the box'}")

    async def _hold_for_clock(self) -> None:
        while self._clock.holds():
            await self._clock.sleep(1.0)
        if self._clock.timing() is Timing.UNKNOWN:
            log.warning("the clock is not synchronised; readings carry what it says, and that it is not to be trusted")

    async def _keep_polling(self, poller: Poller) -> None:
        while True:
            try:
                await poller.run()
            except Exception:
                # One poller's mistake must not take the box down, loudspeakers and all.
                log.exception("polling %s crashed; again in %.0f s", poller.stream or "the box", RESTART_SECONDS)
            await self._clock.sleep(RESTART_SECONDS)

    async def _tell(self, running: _Running) -> None:
        while True:
            await self._write_status(running)
            await self._clock.sleep(STATUS_EVERY)

    async def _write_status(self, running: _Running) -> None:
        link, topology, voice = running.link, running.topology, running.voice
        path = self._config.node.status_file
        if path is None:
            return
        told = {
            "node": self._config.node.id,
            "state": "stopped" if self._stopped else "born" if link.born else "waiting",
            "stopped": self._stopped,
            "born": link.born,
            "at": self._clock.now_ms(),
            "read": sum(one.read for one in running.pollers),
            "reported": link.counts.reported,
            "committed": link.committed(),
            "uncommitted": link.uncommitted(),
            "refusals": link.counts.refusals,
            "devices": {
                one.id: {
                    "presence": topology.said.get(one.id),
                    "since": topology.said_at.get(one.id),
                    "online": topology.said.get(one.id) == ONLINE,
                }
                for one in self._config.devices
            },
            "announcements": dict(voice.counts) if voice is not None else {},
        }
        try:
            await asyncio.to_thread(status.write, path, told)
        except OSError as exc:
            if not self._status_fails:
                log.warning("status file %s cannot be written: %s", path, exc)
            self._status_fails = True
            return
        if self._status_fails:
            log.info("status file %s can be written again", path)
        self._status_fails = False

    def _uplink_settings(self) -> uplink.Settings:
        node = self._config.node
        return uplink.Settings(
            group=node.group,
            node=node.id,
            brokers=[_server(one) for one in self._config.brokers],
            primary_host=node.primary_host,
            birth_jitter=node.birth_jitter_seconds,
            keep_alive=node.keep_alive_seconds,
            commit_interval=node.commit_interval_seconds,
        )

    def _announcer(
        self,
        config: BroadcastConfig | None,
        journal: CommandJournal,
        speakers: Mapping[str, IpSpeaker | LocalOutput],
        *,
        record: announcer.Record,
    ) -> announcer.Announcer | None:
        if config is None:
            return None
        node = self._config.node
        settings = announcer.Settings(
            node=node.id,
            anchor=Anchor(
                group=node.group,
                deployment=config.deployment,
                environment=config.environment,
                root=config.root.read_text(encoding="utf-8"),
            ),
            identity=identity(config),
            max_volume=config.max_volume,
            trust_clock=node.clock == "trusted",
        )
        return announcer.Announcer(
            settings,
            journal=journal,
            cache=AudioCache(node.state_dir / "audio", config.audio_url),
            speakers=speakers,
            record=record,
            clock=self._clock,
        )


def _claimed(folder: Path) -> BinaryIO:
    """Return the lock by which this process has the folder alone, until closed; raise ConfigRefused if it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as exc:
        raise ConfigRefused(f"node state_dir: {exc.filename} cannot be used: {exc.strerror}; mend its rights") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise ConfigRefused(f"node state_dir: another agent is running in {folder}; stop it first") from exc
    return lock


def _rhythm(one: DeviceConfig, devices: Sequence[DeviceConfig]) -> Rhythm:
    """Return how a device is asked; one that shares a line or a worker first waits for its turn, however long."""
    deadline = one.timeout_seconds
    if isinstance(one, ModbusSensorConfig):
        line = [other for other in devices if isinstance(other, ModbusSensorConfig) and other.line == one.line]
        deadline = sum(other.timeout_seconds for other in line)
    if isinstance(one, OnvifCameraConfig):
        cameras = [other for other in devices if isinstance(other, OnvifCameraConfig)]
        deadline = 2 * deadline + sum(other.timeout_seconds for other in cameras) / FRAME_WORKERS
    return Rhythm(poll=one.poll_seconds, deadline=deadline + 2.0, grace=one.grace_seconds)


def identity(config: BroadcastConfig) -> Ed25519PrivateKey:
    """Return this box's own key; raise ConfigRefused where the file holds none."""
    try:
        key = load_pem_private_key(config.identity_key.read_bytes(), password=None)
    except (OSError, ValueError) as exc:
        raise ConfigRefused(f"broadcast identity_key {config.identity_key}: no private key: {exc}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigRefused(f"broadcast identity_key {config.identity_key} is no Ed25519 key")
    return key


def _server(config: BrokerConfig) -> Server:
    password = secret(config.password_file) if config.password_file else None
    return Server(host=config.host, port=config.port, username=config.username, password=password)
