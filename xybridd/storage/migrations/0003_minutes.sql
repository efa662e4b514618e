-- What each session gathered minute by minute, and how the device was meanwhile.

CREATE TABLE minute (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX minute_session ON minute (session_id);

CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
