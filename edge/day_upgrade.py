"""Brings a day file that version 0.1 wrote, one row a record, into today's form; a new file gets its tables."""

import sqlite3
from itertools import groupby

from contract.positions import Lineage
from edge.record_bytes import Record, chunks_of


def upgrade(connection: sqlite3.Connection, schema: str, log_id: str) -> None:
    """Make all tables; carry over what older ones hold, in one transaction. Raises sqlite3.Error."""
    old = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone() is not None
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if old:
            connection.execute("DROP TABLE spans")
        for statement in schema.split(";"):
            connection.execute(statement)
        if not old:
            return
        rows = connection.execute(
            "SELECT epoch, stream, offset, at, event, metrics FROM records ORDER BY epoch, stream, offset"
        )
        for (epoch, stream), group in groupby(rows, key=lambda row: (row[0], row[1])):
            lineage = Lineage(log_id, epoch, stream)
            records = [
                Record(lineage=lineage, offset=offset, at=at, event=bool(event), metrics=metrics, handed=True)
                for _, _, offset, at, event, metrics in group
            ]
            chunks = list(chunks_of(records))
            connection.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)", [(epoch, stream, *one) for one in chunks]
            )
            connection.executemany(
                "INSERT INTO spans VALUES (?, ?, ?, ?, ?)",
                [(epoch, stream, first, last, newest) for first, last, _, newest, _ in chunks],
            )
        connection.execute("DROP TABLE records")
