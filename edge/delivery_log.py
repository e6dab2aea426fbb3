"""Records on their way to the hub, safe across a power cut: the store between measuring and sending.

One file per UTC day holds records (day_file.py); `log.db` beside them holds what outlives days (log_register.py).
Telemetry waits in memory for the next group commit (an SD card written at every reading is soon a dead SD card); an
event is committed before it is sent, and takes everything pending with it.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from contract import sparkplug_pb2
from contract.clock import Clock
from contract.metrics import DataType, Metric, Sample
from contract.positions import EMPTY, Lineage, Position, Positions, RangeSet, difference, union
from edge.day_file import ChunkUnreadable, DayFile, Newest, day_of
from edge.lanes import Missing, sendable
from edge.log_register import LogRegister
from edge.messages import read_sample, record_metrics
from edge.record_bytes import Record, RecordsUnreadable, positions_of
from edge.retention import KEEP_DAYS, Day, leaving

log = logging.getLogger(__name__)

MOST_PENDING = 50_000
"""Records kept in memory while the disk refuses them; the oldest go first."""

BUDGET = 4_000_000_000
"""Bytes of the log on disk, unless the configuration says otherwise."""

FOLD_AFTER = 180
"""Group commits until a day is put in order: half an hour's."""


class DeliveryLog:
    """What this box measured and has not yet been told to forget. Open it with `with`; one process at a time.

    `append` never waits for the disk but where a clock was set back. `commit`, `read`, `expire` and leaving block; they
    raise sqlite3.Error where the disk refuses. Who keeps accounts of what is held asks `take_changes`.
    """

    def __init__(self, folder: Path, clock: Clock, *, budget: int = BUDGET) -> None:
        self._folder = folder
        self._clock = clock
        self._budget = budget
        self._lock = threading.Lock()
        self._disk = threading.RLock()
        self._pending: list[Record] = []
        self._pending_instants: set[tuple[str, int]] = set()
        self._offsets: dict[str, int] = {}
        self._held: dict[Lineage, RangeSet] = {}
        self._unhanded: dict[Lineage, RangeSet] = {}
        self._unhanded_moved = False
        self._newest: dict[int, Newest] = {}
        self._days: dict[str, DayFile] = {}
        self._gained: dict[Lineage, RangeSet] = {}
        self._gone: dict[Lineage, RangeSet] = {}
        self._damaged: dict[Lineage, RangeSet] = {}
        self._dropped = 0
        self._size = 0
        self.refused = False
        """Whether the disk refused the last commit."""
        self.set_aside = False
        """Whether a file was set aside of which nobody knows how many uncommitted records it held."""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._register = LogRegister(self._folder / "log.db", self._clock)
        self.log_id, self.epoch = self._register.log_id, self._register.epoch
        self._unhanded = dict(self._register.unhanded)
        for path in sorted(self._folder.glob("????-??-??.db")):
            self._load(path)
        self._register.adopt({lineage.epoch for lineage in self._held})
        self._unhanded = {one: ranges & self._held[one] for one, ranges in self._unhanded.items() if one in self._held}
        try:
            for day in self._days.values():
                self._tidy(day, self._newest, over=True)
        except sqlite3.OperationalError as exc:
            self.refused = True
            log.error("the delivery log in %s cannot be written: %s; records wait in memory", self._folder, exc)
        self._measure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.commit()
            for day in self._days.values():
                self._tidy(day, self._newest, over=True)
        except sqlite3.Error as exc:
            log.error("the delivery log in %s could not be written at the end: %s", self._folder, exc)
        self._register.close()

    @property
    def held(self) -> Positions:
        """What is on disk; replaced, never changed."""
        return self._held

    @property
    def lost(self) -> Positions:
        """What had to go before the hub was known to have it."""
        return self._register.lost

    @property
    def expired(self) -> Positions:
        """How far streams went of which days were let go, as positions from the first on."""
        return self._register.expired

    @property
    def kept_floor(self) -> int | None:
        """The floor that a hub told last, on disk: where the first birth of the next life lists from."""
        return self._register.floor

    def keep_floor(self, floor: int | None) -> None:
        """Put the hub's floor on disk."""
        with self._disk:
            self._register.keep_floor(floor)

    @property
    def pending(self) -> int:
        """How many records wait for the next commit."""
        return len(self._pending)

    @property
    def oldest_pending(self) -> int | None:
        """The instant of the first record that waits for the next commit."""
        return self._pending[0].at if self._pending else None

    @property
    def last_logged(self) -> int | None:
        """The latest instant on disk, in ms."""
        return max((day.reach for day in self._days.values()), default=None)

    @property
    def synchronised_boot(self) -> str:
        """In which boot of the box its clock was last synchronised, "" if it never was."""
        return self._register.fact("synchronised_boot", "")

    def note_synchronised(self, boot: str) -> None:
        """Remember that the clock is synchronised in this boot, as far as the disk takes it."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._register.remember(synchronised_boot=boot)

    @property
    def size(self) -> int:
        """Bytes on disk, as of the last commit."""
        return self._size

    def place(self, epoch: int) -> int | None:
        """Return where an epoch stands in this log's own order, None if it is none of this log."""
        return self._register.place(epoch)

    def take_changes(self) -> tuple[Positions, Positions, Positions]:
        """Return what came to be held, what was given up, and what turned out to be damaged, since last asked."""
        with self._lock:
            changes = self._gained, self._gone, self._damaged
            self._gained, self._gone, self._damaged = {}, {}, {}
        return changes

    def alias(self, stream: str, name: str, datatype: DataType) -> int:
        """Return the alias of a metric, given once and for all; never given to another metric by this log."""
        return self._register.alias(stream, name, datatype)

    def introduce(self, known: Mapping[str, Mapping[str, Metric]]) -> None:
        """Give aliases to the metrics of many streams at once, so that the disk is waited for once."""
        self._register.give(
            (stream, one.name, one.datatype) for stream, metrics in known.items() for one in metrics.values()
        )

    def known(self, stream: str) -> list[tuple[str, DataType]]:
        """Return every metric this stream ever had, by name and datatype."""
        return self._register.known(stream)

    def next_bdseq(self) -> int:
        """Return a bdSeq, 0-255, for the next CONNECT, on disk already (topics-nbirth-bdseq-increment)."""
        return self._register.next_bdseq()

    def append(
        self,
        stream: str,
        at: int,
        samples: Sequence[Sample],
        known: Mapping[str, Metric],
        *,
        handed: bool = False,
    ) -> Record:
        """Give the samples of one read a position; they are in memory until the next commit.

        Records of one stream have distinct instants: on an exact collision the whole record moves by 1 ms, again until
        it is free. It is never compared with the last instant, since a clock set back would drag an hour along.
        `handed`: a session lives, which is given the record at once.
        """
        while (stream, at) in self._pending_instants or self._taken(stream, at):
            at += 1
        lineage = Lineage(self.log_id, self.epoch, stream)
        event = any(known[sample.metric].event for sample in samples if sample.metric in known)
        metrics = record_metrics(stream, at, samples, known, self.alias)
        offset = self._offsets.get(stream, 0)
        self._offsets[stream] = offset + 1
        record = Record(lineage=lineage, offset=offset, at=at, metrics=metrics, event=event, handed=handed)
        with self._lock:
            self._pending.append(record)
            self._pending_instants.add((stream, at))
        for metric in sparkplug_pb2.Payload.FromString(metrics).metrics:
            self._newest[metric.alias] = (self.epoch, offset, metric.SerializeToString())
        return record

    def commit(self) -> None:
        """Write everything pending, fsynced. What a disk refuses stays pending, within bounds, and raises."""
        with self._disk:
            with self._lock:
                pending, self._pending = self._pending, []
                newest = dict(self._newest)
            days: dict[str, list[Record]] = {}
            for record in pending:
                days.setdefault(day_of(record.at), []).append(record)
            written: set[int] = set()
            try:
                if days:
                    self._register.save()
                for day, records in days.items():
                    self._write(day, records)
                    written |= set(map(id, records))
                if self._unhanded_moved:
                    self._register.keep_unhanded(self._unhanded)
                    self._unhanded_moved = False
                self._tidy_in_time(days, newest)
            except sqlite3.Error as exc:
                self._keep(pending, written, exc)
                raise
            finally:
                with self._lock:
                    self._pending_instants -= {(one.lineage.stream, one.at) for one in pending if id(one) in written}
            self._measure()
        if self.refused and written:
            self.refused = False
            log.warning("the delivery log in %s can be written again", self._folder)

    def read(self, lineage: Lineage, first: int, last: int, most_bytes: int) -> list[Record]:
        """Return consecutive records from `first` on, at least one if it is held, up to `most_bytes`.

        The list ends early where instants go back or a record is missing, so that it can be sent as one message. Where
        `first` cannot be read any more the list is empty, and what is missing is not claimed to be held any longer.
        """
        found: list[Record] = []
        size = 0
        while size < most_bytes and (not found or found[-1].offset < last):
            part = self._read_from(lineage, found[-1].offset + 1 if found else first, last, most_bytes - size)
            if not part:
                break
            found += part
            size += sum(len(one.metrics) for one in part)
        return sendable([one for one in found if one.offset <= last], most_bytes)

    def _read_from(self, lineage: Lineage, first: int, last: int, most_bytes: int) -> list[Record]:
        end = last
        for day in list(self._days.values()):
            if not day.has(lineage, first):
                continue
            try:
                found = day.read(lineage, first, most_bytes)
            except ChunkUnreadable as exc:
                log.error("%s: %s; records %d-%d of %s are gone", day.path, exc, first, exc.last, lineage)
                end = min(last, exc.last)
            except sqlite3.DatabaseError as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    with self._disk:
                        self._measure()
                    raise
                self._set_aside(day, f"is damaged ({exc})", f"broken-{self._clock.now_ms()}")
            else:
                if found:
                    return found
        self._stop_claiming({lineage: RangeSet([(first, end)])})
        return []

    def oldest(self, firsts: Sequence[tuple[Lineage, int]]) -> int | None:
        """Return the earliest instant of some records."""
        found = (self.read(lineage, offset, offset, 1) for lineage, offset in firsts)
        return min((records[0].at for records in found if records), default=None)

    def newest(self, stream: str, metric: Metric) -> tuple[Sample, Position] | None:
        """Return the newest logged sample of a metric and where it stands."""
        alias = self._register.known_alias(stream, metric.name, metric.datatype)
        logged = self._newest.get(alias) if alias is not None else None
        if logged is None:
            return None
        epoch, offset, raw = logged
        return read_sample(metric, raw), Position(self.log_id, epoch, stream, offset)

    @property
    def unhanded(self) -> Positions:
        """What is on disk and was never given to any session."""
        return {one: ranges & self._held[one] for one, ranges in self._unhanded.items() if one in self._held}

    def hand_over(self, lineage: Lineage, first: int, last: int) -> None:
        """Put on disk that a session is given these records now: after a power cut they are not given again."""
        with self._disk:
            newest = dict(self._newest)
            for day in self._days.values():
                if day.commits:
                    day.fold(newest)
            self._unhanded = difference(self._unhanded, {lineage: RangeSet([(first, last)])})
            self._register.keep_unhanded(self._unhanded)

    def all_handed(self) -> None:
        """Note that a hub which tells what it has will be given everything."""
        if self._unhanded:
            self._unhanded, self._unhanded_moved = {}, True

    def not_handed(self, positions: Positions) -> None:
        """Note that a session ended before it was given these records."""
        if positions:
            self._unhanded, self._unhanded_moved = union(self._unhanded, positions), True

    @property
    def untold_lost(self) -> int:
        """How many records had to go that no event has told of."""
        return self._dropped + int(self._register.fact("lost_untold", "0"))

    def dropped(self, records: int) -> None:
        """Note that records are gone that the hub is not known to have."""
        self._dropped += records

    def told_lost(self, records: int) -> None:
        """Note that an event which is on disk tells of so many of them."""
        from_disk = min(records, int(self._register.fact("lost_untold", "0")))
        if from_disk:
            self._register.remember(lost_untold=int(self._register.fact("lost_untold", "0")) - from_disk)
        self._dropped -= records - from_disk

    def expire(self, missing: Missing, *, under: Collection[int], hub_known: bool, clock_known: bool) -> None:
        """Unlink the days that must go, as retention.py decides; what is lost by that is on disk before.

        `missing` tells what of some positions the hub is not known to have; `under` are the epochs under its floor.
        A clock of which nobody knows how good it is makes no day old.
        """
        with self._disk:
            now = self._clock.now_ms()
            absent = {day: _absent(file, missing) for day, file in self._days.items()}
            days = [Day(day=day, size=file.size(), uncommitted=_count(absent[day])) for day, file in self._days.items()]
            for one in leaving(
                days,
                today=day_of(now),
                keep_from=day_of(now - KEEP_DAYS * 86_400_000) if clock_known else "",
                budget=self._budget,
                hub_known=hub_known,
            ):
                if one.uncommitted:
                    log.error(
                        "the log is over %d bytes: %s goes with %d records that the hub is not known to have",
                        self._budget, one.day, one.uncommitted,
                    )  # fmt: skip
                    self._register.note_lost(absent[one.day], one.uncommitted)
                self._register.note_expired(self._days[one.day].spans)
                file = self._days.pop(one.day)
                with self._lock:
                    self._held = difference(self._held, file.spans)
                    self._gone = union(self._gone, file.spans)
                    self._unhanded = difference(self._unhanded, file.spans)
                file.unlink()
            held = {lineage.epoch for lineage in self._held}
            self._register.forget_lost(epoch for epoch in under if epoch not in held)
            self._measure()

    def give_up_expired(self, missing: Missing) -> None:
        """Count as lost what went because the hub had it, and what a hub restored from a backup has no more."""
        with self._disk:
            absent = ((lineage, missing(lineage, ranges)) for lineage, ranges in self.expired.items())
            gone = difference(difference(dict(absent), self._held), self.lost)
            if not gone:
                return
            log.error("%d records are gone that a restored hub no longer has", _count(gone))
            self._register.note_lost(gone, _count(gone))
            with self._lock:
                self._damaged = union(self._damaged, gone)

    def _load(self, path: Path) -> None:
        day = DayFile(path, self.log_id)
        try:
            origin, newest, hot = day.load()
        except (sqlite3.DatabaseError, RecordsUnreadable) as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise
            self._set_aside(day, f"is damaged ({exc})", f"broken-{self._clock.now_ms()}")
            return
        if origin is not None and origin != self.log_id:
            self._set_aside(day, f"belongs to log {origin}, not to {self.log_id}", f"of-{origin}")
            return
        if not newest.keys() <= self._register.aliases:
            # Its names are gone with the register that gave them, and numbers alone would be somebody else's.
            self._set_aside(day, "is newer than log.db and names metrics by numbers unknown there", "unknown")
            return
        self._days[day.day] = day
        self._held = union(self._held, day.spans)
        for one in hot:
            if not one.handed:
                self._unhanded[one.lineage] = self._unhanded.get(one.lineage, EMPTY).add(one.offset, one.offset)
            for metric in sparkplug_pb2.Payload.FromString(one.metrics).metrics:
                self._take_newest(metric.alias, (one.lineage.epoch, one.offset, metric.SerializeToString()))
        for alias, found in newest.items():
            self._take_newest(alias, found)

    def _take_newest(self, alias: int, found: Newest) -> None:
        known = self._newest.get(alias)
        if known is None or self._order(found) > self._order(known):
            self._newest[alias] = found

    def _order(self, found: Newest) -> tuple[int, int]:
        return self.place(found[0]) or 0, found[1]

    def _measure(self) -> None:
        """Add up what is on disk; what somebody removed is not claimed any longer."""
        sizes = {name: day.size() for name, day in self._days.items()}
        for name in [name for name, size in sizes.items() if not size]:
            day = self._days.pop(name)
            log.error("%s is gone though nobody here removed it, with %s records", day.path, _count(day.spans))
            day.unlink()
            self._stop_claiming(day.spans)
        self._size = sum(sizes.values())

    def _set_aside(self, day: DayFile, why: str, mark: str) -> None:
        with self._disk:
            aside = day.set_aside(mark)
            self._days.pop(day.day, None)
        log.error("%s %s; set aside as %s, its records are not delivered", day.path, why, aside.name)
        self.set_aside = True
        self._stop_claiming(day.spans)

    def _stop_claiming(self, positions: Positions) -> None:
        with self._lock:
            claimed = {one: ranges & self._held[one] for one, ranges in positions.items() if one in self._held}
            self._held = difference(self._held, claimed)
            self._unhanded = difference(self._unhanded, claimed)
            self._damaged = union(self._damaged, claimed)

    def _taken(self, stream: str, at: int) -> bool:
        day = self._days.get(day_of(at))
        try:
            return day is not None and day.taken(stream, at)
        except (sqlite3.Error, RecordsUnreadable):
            return False  # what cannot be read cannot be delivered either

    def _write(self, name: str, records: Sequence[Record]) -> None:
        day = self._days.get(name) or DayFile(self._folder / f"{name}.db", self.log_id)
        # Known before it is written: where the disk refuses, the next try finds this open file, and not its lock.
        self._days = {**self._days, name: day}
        try:
            day.write(records)
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise
            self._set_aside(day, f"is damaged ({exc})", f"broken-{self._clock.now_ms()}")
            day = DayFile(self._folder / f"{name}.db", self.log_id)
            self._days = {**self._days, name: day}
            day.write(records)
        gained = positions_of(records)
        with self._lock:
            self._held = union(self._held, gained)
            self._gained = union(self._gained, gained)
            self._unhanded = union(self._unhanded, positions_of([one for one in records if not one.handed]))

    def _tidy_in_time(self, written: Collection[str], newest: Mapping[int, Newest]) -> None:
        """Fold what has many commits; what is written no more is folded and sealed."""
        today = day_of(self._clock.now_ms())
        for name, day in self._days.items():
            over = name not in written and name != today
            if (day.is_open or day.commits) and (over or day.commits >= FOLD_AFTER):
                self._tidy(day, newest, over=over)

    def _tidy(self, day: DayFile, newest: Mapping[int, Newest], *, over: bool) -> None:
        if day.commits:
            self._register.keep_unhanded(self._unhanded)
            day.fold(newest)
        if over:
            day.seal()

    def _keep(self, pending: Sequence[Record], written: Collection[int], exc: sqlite3.Error) -> None:
        with self._lock:
            waiting = [record for record in pending if id(record) not in written] + self._pending
            dropped, self._pending = waiting[:-MOST_PENDING], waiting[-MOST_PENDING:]
            self._pending_instants -= {(one.lineage.stream, one.at) for one in dropped}
            self._dropped += len(dropped)
        if not self.refused:
            self.refused = True
            log.error("the delivery log in %s cannot be written: %s; records wait in memory", self._folder, exc)


def _count(positions: Positions) -> int:
    return sum(map(len, positions.values()))


def _absent(file: DayFile, missing: Missing) -> Positions:
    found = ((lineage, missing(lineage, ranges)) for lineage, ranges in file.spans.items())
    return {lineage: ranges for lineage, ranges in found if ranges}
