-- What devices were asked to do at once, each kept before it is sent; its expiry ends the sending.
CREATE TABLE commands (
    id TEXT PRIMARY KEY,
    "group" TEXT NOT NULL,
    node TEXT NOT NULL,
    device TEXT NOT NULL,
    action TEXT NOT NULL,
    issuer TEXT NOT NULL,               -- the account
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    stage TEXT NOT NULL,
    reason TEXT NOT NULL,
    since INTEGER NOT NULL,             -- when it reached that stage
    sendings INTEGER NOT NULL
) STRICT;
CREATE INDEX commands_of ON commands ("group", node, device, issued_at);
CREATE INDEX commands_by_stage ON commands (stage);
