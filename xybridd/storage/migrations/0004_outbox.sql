-- What is to be sent, to whom, and what became of it.

CREATE TABLE export (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    made_at_ms INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    platform TEXT NOT NULL,
    app TEXT NOT NULL,
    app_version TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    made_at_ms INTEGER NOT NULL,
    item INTEGER NOT NULL,
    state TEXT NOT NULL,
    batch TEXT,
    reason TEXT
) STRICT;

CREATE INDEX outbox_unsent ON outbox (sink, id) WHERE state IN ('queued', 'leased', 'waiting');
CREATE INDEX outbox_session ON outbox (session_id);

CREATE TABLE tally (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    UNIQUE (sink, name)
) STRICT;

CREATE TABLE sink (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
) STRICT;
