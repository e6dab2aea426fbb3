-- Floors: the epoch of a log at and under which nothing is asked for any more. A copied card has floors of its own.
CREATE TABLE floors (
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    log TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY ("group", node, log, epoch)
) STRICT, WITHOUT ROWID;

-- Positions that nobody holds and the hub never had, and when the hub learnt it (ms).
CREATE TABLE voids (
    id INTEGER PRIMARY KEY,
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    log TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE ("group", node, log, epoch, stream, first, last)
) STRICT;

CREATE INDEX quarantine_by_node ON quarantine ("group", node, id);
