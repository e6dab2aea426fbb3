-- What people did: announcements and the audit. Readings are in store.db.
CREATE TABLE announcements (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    issuer TEXT NOT NULL,
    text TEXT NOT NULL,
    filename TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    duration_ms INTEGER NOT NULL,
    volume INTEGER NOT NULL
) STRICT;
CREATE INDEX announcements_by_time ON announcements (created_at);

CREATE TABLE parts (
    announcement TEXT NOT NULL REFERENCES announcements (id),
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    device TEXT NOT NULL,
    stage TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL,          -- JSON: when each stage was reached, ms
    PRIMARY KEY (announcement, "group", node, device)
) STRICT, WITHOUT ROWID;

-- Orders to stop an announcement, by the order's own id.
CREATE TABLE stops (
    id TEXT PRIMARY KEY,
    announcement TEXT NOT NULL REFERENCES announcements (id),
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE cursors (name TEXT PRIMARY KEY, id INTEGER NOT NULL) STRICT;

-- Who did what, why and when. Rows are only ever added.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    why TEXT NOT NULL,
    subject TEXT NOT NULL
) STRICT;
