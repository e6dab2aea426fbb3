"""The record of acts: what was done stays, and every way to change it unnoticed is named by the check."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.dsse import public_bytes
from hub import audit_check
from hub.audit import DETAILS, Act, Person, verified
from hub.audit_export import ExportRefused, audit_key, export, verify_export
from hub.audit_heads import HeadsUnreadable, append, keep_heads, read
from hub.storage.audit import Audit, Search, chain
from hub.storage.database import SCHEMAS, open_database

LAN = Person(account="p-lan", name="Nguyễn Thị Lan", address="192.0.2.7")
MINH = Person(account="p-minh", name="Trần Văn Minh", address="192.0.2.8")
SAMPLE = '[hub]\nhost_id = "h"\nstate_dir = "."\n[audit]\nheads_file = "heads.jsonl"\n'


def act(number: int, by: Person = LAN, **more: Any) -> Act:
    return Act(
        at=1000 + number, by=by, what="device.rename", subject=f"d-{number}", why="sửa tên", after={"n": number}, **more
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "hub.db", "hub")) as connection:
        yield connection


@pytest.fixture
def audit(database: sqlite3.Connection) -> Audit:
    made = Audit(database)
    for number in range(1, 6):
        made.record(act(number, MINH if number == 4 else LAN))
    return made


def difference(database: sqlite3.Connection) -> str | None:
    return verified(chain(database)).difference


def forced(database: sqlite3.Connection, sql: str, *values: object) -> None:
    """Do to the file what somebody with the file in his hands can do."""
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    database.execute("PRAGMA foreign_keys = OFF")
    database.execute(sql, values)


def test_a_record_that_nobody_touched_verifies(audit: Audit, database: sqlite3.Connection) -> None:
    found = verified(chain(database))
    assert (found.entries, found.erased, found.difference) == (5, 0, None)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE acts SET at = at + 1 WHERE number = 3", "entry 3: its content"),
        ("UPDATE acts SET account = 'p-minh' WHERE number = 3", "entry 3: its content"),
        ("UPDATE acts SET what = 'x' WHERE number = 1", "entry 1: its content"),
        ("UPDATE acts SET subject = 'x' WHERE number = 5", "entry 5: its content"),
        ("UPDATE acts SET sealed = 'spoilt' WHERE number = 2", "entry 2: its content"),
        ("UPDATE acts SET previous = zeroblob(32) WHERE number = 2", "entry 2 does not follow entry 1"),
        ("UPDATE acts SET hash = zeroblob(32) WHERE number = 2", "entry 2: its content"),
        ("DELETE FROM acts WHERE number = 2", "entry 2 is missing; entry 3 follows"),
        ("DELETE FROM acts WHERE number = 1", "entry 1 is missing"),
        ("UPDATE act_details SET value = '\"ai khác\"' WHERE number = 2 AND field = 'name'", "entry 2: name is not"),
        ("UPDATE act_details SET salt = zeroblob(16) WHERE number = 2 AND field = 'why'", "entry 2: why is not"),
        ("DELETE FROM act_details WHERE number = 2 AND field = 'why'", "no later act says that it was erased"),
        ("INSERT INTO act_details VALUES (2, 'before', zeroblob(16), '1')", "entry 2: before is not"),
    ],
)
def test_every_change_is_named(audit: Audit, database: sqlite3.Connection, sql: str, words: str) -> None:
    forced(database, sql)
    assert words in str(difference(database))


@pytest.mark.parametrize("sql", ["UPDATE acts SET at = 1", "DELETE FROM acts", "UPDATE act_details SET value = '1'"])
def test_the_file_itself_refuses_what_the_program_never_does(
    audit: Audit, database: sqlite3.Connection, sql: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=r"only ever added|stay as they were"):
        database.execute(sql)


def test_entries_cut_off_at_the_end_are_found_by_a_head_kept_elsewhere(
    audit: Audit, database: sqlite3.Connection
) -> None:
    head = audit.head(9)
    assert head is not None
    forced(database, "DELETE FROM acts WHERE number = 5")
    assert difference(database) is None
    assert "ends with entry 4, a head kept elsewhere names entry 5" in str(verified(chain(database), [head]).difference)


def test_a_chain_made_anew_with_right_hashes_is_found_by_a_head_kept_elsewhere(audit: Audit, tmp_path: Path) -> None:
    head = audit.head(9)
    assert head is not None
    with closing(open_database(tmp_path / "forged.db", "hub")) as forged:
        again = Audit(forged)
        for number in range(1, 8):
            again.record(act(number, MINH))
        assert difference(forged) is None
        assert "entry 5: a head kept elsewhere has another hash" in str(verified(chain(forged), [head]).difference)


def test_a_persons_name_and_address_can_be_erased_and_the_chain_holds(
    audit: Audit, database: sqlite3.Connection
) -> None:
    assert audit.erase_person("p-lan", Act(at=9, by=MINH, what="", why="yêu cầu xóa")) == 8
    found = verified(chain(database))
    assert (found.difference, found.erased) == (None, 4)
    told = audit.search(Search(account="p-lan"))
    assert {one.erased for one in told} == {("name", "address")}
    assert "Lan" not in "".join(str(one.details) for one in told)
    assert audit.search(Search(what="audit.erase_person"))[0].subject == "p-lan"
    assert not database.execute("SELECT 1 FROM act_details WHERE value LIKE '%Lan%'").fetchall()


def test_the_details_of_one_act_can_be_erased_and_the_chain_holds(audit: Audit, database: sqlite3.Connection) -> None:
    audit.erase_act(3, Act(at=9, by=MINH, what=""))
    assert verified(chain(database)).difference is None
    (third,) = audit.search(Search(subject="d-3"))
    assert third.details == {}


def test_an_erasure_excuses_nothing_else(audit: Audit, database: sqlite3.Connection) -> None:
    audit.erase_person("p-lan", Act(at=9, by=MINH, what=""))
    forced(database, "DELETE FROM act_details WHERE number = 4")
    assert "entry 4" in str(difference(database))
    forced(database, "DELETE FROM act_details WHERE number = 2 AND field = 'after'")
    assert "entry 2: after is gone" in str(difference(database))


def test_acts_are_found_by_who_what_when_and_by_words_in_them(audit: Audit) -> None:
    audit.record(Act(at=5000, by=MINH, what="announcement.make", subject="a-1", after={"text": "Mời bà con 100%_"}))
    assert [one.number for one in audit.search(Search(account="p-minh"))] == [6, 4]
    assert [one.number for one in audit.search(Search(text="bà con"))] == [6]
    assert [one.number for one in audit.search(Search(text="100%_"))] == [6]
    assert audit.search(Search(text="100__")) == []
    assert [one.number for one in audit.search(Search(start=1002, end=1004))] == [3, 2]
    assert [one.number for one in audit.search(Search(), before=3, most=1)] == [2]
    assert audit.search(Search(text="' OR 1=1 --")) == []


def test_an_act_stands_only_with_what_it_tells(audit: Audit, database: sqlite3.Connection) -> None:
    from hub.storage.database import transaction

    with pytest.raises(RuntimeError), transaction(database):
        audit.add(act(6))
        raise RuntimeError
    assert verified(chain(database)).entries == 5


def test_what_an_earlier_version_kept_is_taken_into_the_chain_once(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "hub.db", "hub")) as database:
        database.execute("INSERT INTO audit (at, who, what, why, subject) VALUES (5, 'local', 'stop', '', 'a-1')")
        for _ in range(2):
            told = Audit(database).search(Search())
            assert [(one.at, one.account, one.what, one.subject) for one in told] == [
                (5, "local", "announcement.stop", "a-1")
            ]
        assert difference(database) is None


@given(st.lists(st.fixed_dictionaries({one: st.text(max_size=20) for one in ("name", "address", "why")}), max_size=8))
def test_whatever_people_are_called_the_chain_verifies(told: list[dict[str, str]]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        for file in sorted(SCHEMAS.glob("hub_*.sql")):
            database.executescript(file.read_text(encoding="utf-8"))
        audit = Audit(database)
        for number, one in enumerate(told):
            by = Person(account="p", name=one["name"], address=one["address"])
            audit.record(Act(at=number, by=by, what="x.y", why=one["why"]))
        assert verified(chain(database)).entries == len(told)
        kept = audit.search(Search(), most=100)[::-1]
        assert [{name: line.details.get(name, "") for name in DETAILS[:3]} for line in kept] == told


def test_an_export_verifies_with_the_hubs_public_key_alone(
    audit: Audit, database: sqlite3.Connection, tmp_path: Path
) -> None:
    audit.erase_person("p-minh", Act(at=9, by=LAN, what=""))
    key = audit_key(tmp_path)
    file = tmp_path / "acts.jsonl"
    file.write_bytes(b"".join(export(database, 2, 5, key)))
    found = verify_export(file, public_bytes(key))
    assert (found.entries, found.erased, found.difference) == (4, 1, None)
    assert (tmp_path / "audit-key.pem").stat().st_mode & 0o077 == 0
    assert audit_key(tmp_path).private_bytes_raw() == key.private_bytes_raw()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[0].replace("d-1", "d-9"), *lines[1:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [],
    ],
    ids=["no signature", "a line less", "another subject", "another order", "empty"],
)
def test_an_export_that_was_changed_is_refused(
    audit: Audit, database: sqlite3.Connection, tmp_path: Path, change: Callable[[list[str]], list[str]]
) -> None:
    key = audit_key(tmp_path)
    file = tmp_path / "acts.jsonl"
    lines = [one.decode() for one in export(database, 1, 5, key)]
    file.write_text("".join(change(lines)), encoding="utf-8")
    with pytest.raises(ExportRefused, match=r"acts\.jsonl"):
        verify_export(file, public_bytes(key))


def test_an_export_of_another_hub_is_refused(audit: Audit, database: sqlite3.Connection, tmp_path: Path) -> None:
    file = tmp_path / "acts.jsonl"
    file.write_bytes(b"".join(export(database, 1, 5, audit_key(tmp_path))))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ExportRefused, match="not signed by key"):
        verify_export(file, public_bytes(audit_key(other)))


async def test_heads_are_written_at_once_and_each_hour(audit: Audit, tmp_path: Path, clock: Any) -> None:
    import asyncio

    file = tmp_path / "heads.jsonl"
    keeping = asyncio.create_task(keep_heads(audit, file, clock))
    while not file.exists():
        await asyncio.sleep(0)
    audit.record(act(6))
    while len(read(file)) < 2:
        await clock.advance(60)
    keeping.cancel()
    assert [one.number for one in read(file)] == [5, 6]


async def test_heads_that_cannot_be_written_are_said_and_tried_again(
    audit: Audit, tmp_path: Path, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    keeping = asyncio.create_task(keep_heads(audit, tmp_path / "no" / "heads.jsonl", clock))
    while "could not be written" not in caplog.text:
        await asyncio.sleep(0)
    (tmp_path / "no").mkdir()
    while not (tmp_path / "no" / "heads.jsonl").exists():
        await clock.advance(60)
    keeping.cancel()


def test_a_line_that_is_no_head_is_named_and_a_cut_off_one_is_none(audit: Audit, tmp_path: Path) -> None:
    head = audit.head(9)
    assert head is not None
    file = tmp_path / "heads.jsonl"
    append(file, head)
    with file.open("a", encoding="utf-8") as out:
        out.write('{"at": 1, "num')
    assert read(file) == [head]
    with file.open("a", encoding="utf-8") as out:
        out.write("\n")
    with pytest.raises(HeadsUnreadable, match="line 2"):
        read(file)


def test_the_command_says_what_it_found(
    audit: Audit, database: sqlite3.Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "hub.toml"
    config.write_text(SAMPLE, encoding="utf-8")
    assert audit_check.main(config, heads=None, export=None, key=None) == 0
    assert "5 acts" in capsys.readouterr().out
    head = audit.head(9)
    assert head is not None
    append(tmp_path / "heads.jsonl", head)
    forced(database, "DELETE FROM acts WHERE number = 5")
    assert audit_check.main(config, heads=None, export=None, key=None) == 1
    assert "names entry 5" in capsys.readouterr().err
    (tmp_path / "cut.jsonl").write_text(json.dumps({"no": "signature"}), encoding="utf-8")
    assert audit_check.main(config, heads=None, export=tmp_path / "cut.jsonl", key=None) == 1
    assert "the file was cut" in capsys.readouterr().err
    assert audit_check.main(config, heads=None, export=tmp_path / "cut.jsonl", key="%%") == 1
    assert "is not base64" in capsys.readouterr().err
