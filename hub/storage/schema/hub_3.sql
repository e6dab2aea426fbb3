-- The audit as a chain (hub/audit.py). What stood in the table before is taken into it at the next start.
CREATE TABLE acts (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    account TEXT NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    sealed TEXT NOT NULL,      -- JSON: salted hash of each detail, by field
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX acts_by_time ON acts (at);
CREATE INDEX acts_by_account ON acts (account, number);
CREATE INDEX acts_by_subject ON acts (subject, number);

CREATE TRIGGER acts_are_not_changed BEFORE UPDATE ON acts
BEGIN SELECT raise(ABORT, 'acts are only ever added'); END;
CREATE TRIGGER acts_are_not_deleted BEFORE DELETE ON acts
BEGIN SELECT raise(ABORT, 'acts are only ever added'); END;

-- What may speak of a person: outside the chain, so that it can be deleted.
CREATE TABLE act_details (
    number INTEGER NOT NULL REFERENCES acts (number),
    field TEXT NOT NULL,
    salt BLOB NOT NULL,
    value TEXT NOT NULL,       -- canonical JSON
    PRIMARY KEY (number, field)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER act_details_are_not_changed BEFORE UPDATE ON act_details
BEGIN SELECT raise(ABORT, 'details are erased or stay as they were'); END;
