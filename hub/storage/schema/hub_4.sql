-- Who may sign in, with what, and what they may do. Secrets that come back (sessions, tokens, links) are kept as SHA-256.
CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,          -- what is typed to sign in, lower case
    full_name TEXT NOT NULL,
    home_group TEXT NOT NULL,           -- the place whose administrators look after it
    home_node TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    disabled_at INTEGER,
    revision INTEGER NOT NULL,          -- grows with each change; two who edit at once are told
    password TEXT,                      -- argon2id
    totp BLOB,                          -- sealed with the key beside the database
    totp_step INTEGER NOT NULL DEFAULT 0    -- the last step a code was taken from: none is taken twice
) STRICT;

CREATE TABLE passkeys (
    id BLOB PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    site TEXT NOT NULL,                 -- the name it was made for
    public_key BLOB NOT NULL,
    uses INTEGER NOT NULL,              -- the authenticator's own counter
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT;
CREATE INDEX passkeys_of ON passkeys (account);

-- Roles over scopes. A grant that ends gets an end; its row stays.
CREATE TABLE grants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL REFERENCES accounts (id),
    role TEXT NOT NULL,
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    starts INTEGER,
    ends INTEGER,
    given_by TEXT NOT NULL,
    given_at INTEGER NOT NULL,
    deputy_of TEXT REFERENCES accounts (id)     -- holds only while that account holds the role itself
) STRICT;
CREATE INDEX grants_of ON grants (account);

CREATE TABLE sessions (
    digest BLOB PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    proven_at INTEGER NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of ON sessions (account);

CREATE TABLE tokens (
    digest BLOB PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    label TEXT NOT NULL,
    rights TEXT NOT NULL,               -- JSON: ["noun verb", ...]
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_of ON tokens (account);

-- One-time links: the first start (no account yet), or setting up sign-in anew.
CREATE TABLE links (
    digest BLOB PRIMARY KEY,
    account TEXT REFERENCES accounts (id),
    totp BLOB NOT NULL,                 -- the secret it will set, sealed
    made_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
