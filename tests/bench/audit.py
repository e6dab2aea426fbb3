"""What the record of acts costs: bytes and seconds of a million acts, and the time to verify them.

The reference is SQLite's own look at every row (`PRAGMA integrity_check`) of the same file in the same run.
"""

import json
import tempfile
import time
from contextlib import closing
from pathlib import Path

from hub.audit import Act, Person, verified
from hub.storage.audit import Audit, chain
from hub.storage.database import open_database, transaction

ACTS = 1_000_000
AT_ONCE = 1000
LONE = 200


def act(number: int) -> Act:
    """Return an act as announcing leaves it."""
    return Act(
        at=1_790_000_000_000 + number,
        by=Person(account=f"p-{number % 300:04}", name="Nguyễn Thị Lan", address="192.0.2.7"),
        what="announcement.make",
        subject=f"{number:032x}",
        why="nhắc tiêm phòng",
        after={
            "text": "Mời bà con đưa trẻ đi tiêm phòng lúc 8 giờ sáng mai.",
            "volume": 60,
            "speakers": ["n-01/loa-01"],
        },
    )


def say(bench: str, figure: float, unit: str, **more: object) -> None:
    """Print one figure."""
    print(json.dumps({"bench": bench, "figure": round(figure, 3), "unit": unit, **more}), flush=True)


def main() -> None:
    """Fill a file, weigh it, verify it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hub.db"
        with closing(open_database(file, "hub")) as database:
            audit = Audit(database)
            begun = time.perf_counter()
            for number in range(LONE):
                audit.record(act(number))
            say("audit/record", (time.perf_counter() - begun) / LONE * 1000, "ms an act, fsynced by itself", acts=LONE)
            for start in range(LONE, ACTS, AT_ONCE):
                with transaction(database):
                    for number in range(start, min(start + AT_ONCE, ACTS)):
                        audit.add(act(number))
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            say("audit/size", file.stat().st_size / ACTS, "bytes an act", acts=ACTS)
            begun = time.perf_counter()
            database.execute("PRAGMA integrity_check").fetchall()
            bare = time.perf_counter() - begun
            begun = time.perf_counter()
            found = verified(chain(database))
            took = time.perf_counter() - begun
            assert (found.entries, found.difference) == (ACTS, None)
            ratio = {"reference": round(bare, 3), "ratio": round(took / bare, 2)}
            say("audit/verify", took, "seconds for all acts", acts=ACTS, **ratio)


if __name__ == "__main__":
    main()
