-- The embedded store. One transaction a batch holds samples, ledger, events and quarantine: that commit is what the hub
-- acknowledges to edge nodes.
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    device TEXT NOT NULL,
    metric TEXT NOT NULL,
    datatype INTEGER NOT NULL,
    UNIQUE ("group", node, device, metric, datatype)
) STRICT;

-- One compressed Arrow table per commit: series, at, number, integer, text, quality, flags, row.
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    samples BLOB NOT NULL
) STRICT;

CREATE TABLE ledger (
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    log TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY ("group", node, log, epoch, stream, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    device TEXT NOT NULL,
    metric TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    value TEXT,
    log TEXT,
    epoch INTEGER,
    "offset" INTEGER
) STRICT;
CREATE INDEX events_by_metric ON events (metric, id);

CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    device TEXT NOT NULL,
    log TEXT,
    epoch INTEGER,
    first INTEGER,
    last INTEGER,
    metric TEXT,
    at INTEGER,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    samples INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
