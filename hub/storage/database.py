"""Opening an SQLite file: durable at each commit, its schema brought up to date by numbered files."""

import sqlite3
from pathlib import Path

SCHEMAS = Path(__file__).parent / "schema"


def open_database(path: Path, name: str) -> sqlite3.Connection:
    """Return a connection whose commits survive a power cut, with every schema file `name_<n>.sql` applied in order.

    Raises sqlite3.DatabaseError where the file is damaged or was written by a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        files = sorted(SCHEMAS.glob(f"{name}_*.sql"), key=_number)
        if version > len(files):
            raise sqlite3.DatabaseError(
                f"{path} has schema version {version}, this program knows {len(files)}; use the newer program"
            )
        for file in files[version:]:
            connection.executescript(
                f"BEGIN; {file.read_text(encoding='utf-8')} PRAGMA user_version = {_number(file)}; COMMIT;"
            )
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def newest_schema(name: str) -> int:
    """Return the schema version this program writes."""
    return len(list(SCHEMAS.glob(f"{name}_*.sql")))


class transaction:  # noqa: N801  # reads as a phrase after `with`
    """BEGIN and COMMIT around a block, ROLLBACK if it raises; connections here are opened in autocommit mode."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._database.execute("ROLLBACK" if kind else "COMMIT")


def _number(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])
