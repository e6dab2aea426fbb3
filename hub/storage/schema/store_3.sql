-- Immutable Parquet files under segments/: samples, and rollups of them. What no row here names is no part of the store.
CREATE TABLE segments (
    file TEXT PRIMARY KEY,
    kind TEXT NOT NULL,             -- samples, minutes (rollups of 5 min), hours (rollups of 1 h)
    day INTEGER NOT NULL,           -- UTC days since 1970; no file spans two
    generation INTEGER NOT NULL,    -- of one key, the row of the highest generation stands
    first_series INTEGER NOT NULL,
    last_series INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    fresh INTEGER NOT NULL,         -- keys that no segment had before
    conflicts INTEGER NOT NULL,     -- keys first found to have differing values
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The sample of the greatest instant of each series, of what is sealed.
CREATE TABLE last_values (
    series INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    number REAL,
    integer INTEGER,
    text TEXT,
    quality INTEGER NOT NULL,
    flags INTEGER NOT NULL
) STRICT;

-- Numbers that must outlive the rows they were counted from: commits and newest_received of what is sealed, generation,
-- the day whose night's merge is done.
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
