-- The whole schema as it stands after the last migration. A test builds a database from this file and one from
-- the migrations and compares the two.
--
-- What changes with every commit is narrow and apart from what does not: a batch rewrites the rows of the models it
-- touched, of its producer and of the ledger, each a few hundred bytes. A session's totals are the sums of its
-- models and errors and stand nowhere else.

CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE,
    device_id TEXT NOT NULL,
    uid INTEGER NOT NULL,
    app TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    started_mono_ms INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    app_version TEXT NOT NULL,
    sdk_version TEXT NOT NULL,
    client_id TEXT,
    implicit INTEGER NOT NULL,
    ended_at_ms INTEGER,
    end_reason TEXT,
    successor TEXT,
    revision INTEGER NOT NULL,
    labels TEXT NOT NULL,
    models_used TEXT NOT NULL,
    hardware TEXT,
    details TEXT NOT NULL,
    transitions TEXT NOT NULL DEFAULT '[]',
    processes TEXT NOT NULL DEFAULT '{}',
    calls_in_progress TEXT NOT NULL DEFAULT '[]'
) STRICT;

CREATE INDEX session_started ON session (started_at_ms);
CREATE INDEX session_open ON session (id) WHERE ended_at_ms IS NULL;

-- One model at one version in one session; latency, stats and conditions are histograms and sums, MessagePack.
CREATE TABLE model (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    model_id TEXT NOT NULL,
    version TEXT NOT NULL,
    call_count INTEGER NOT NULL,
    total_latency_ms INTEGER NOT NULL,
    error_count INTEGER NOT NULL,
    last_called_ms INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    latency BLOB NOT NULL,
    stats BLOB NOT NULL,
    conditions BLOB NOT NULL DEFAULT x'',
    cancelled INTEGER NOT NULL DEFAULT 0,
    UNIQUE (session_id, position)
) STRICT;

CREATE TABLE error (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    category TEXT NOT NULL,
    message TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    model_id TEXT,
    UNIQUE (session_id, position)
) STRICT;

-- The highest batch of each producer, written in the transaction that wrote what the batch changed.
CREATE TABLE producer (
    id INTEGER PRIMARY KEY,
    uid INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    app TEXT NOT NULL,
    last_seq INTEGER NOT NULL,
    heard_at_ms INTEGER NOT NULL,
    ring BLOB NOT NULL DEFAULT x'',
    UNIQUE (uid, client_id)
) STRICT;

CREATE TABLE ledger (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL
) STRICT;

-- What a session gathered in one minute, or in one hour when that is long past; the sums of a session's are its totals.
-- The body is a `Minute` in MessagePack.
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
CREATE INDEX minute_started ON minute (started_at_ms, id);

-- The device as it was in a minute in which something was recorded; the body is a `Sample` in MessagePack.
CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- What is to be sent, frozen: the JSON of an export, compressed. It goes when the last row of the outbox that needs it has.
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

-- One export for one sink, in one of the states of `xybridd.core.outbox`. The item is the id of an export, a minute or
-- a sample, by its kind. AUTOINCREMENT: an id is part of a batch's key and must never come again.
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

-- What was made and how it ended, for each sink; what is still queued or dead is counted in the outbox itself.
CREATE TABLE tally (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    UNIQUE (sink, name)
) STRICT;

-- How a sink did last: failures in a row, until when to wait, JSON.
CREATE TABLE sink (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
) STRICT;

-- What the wall clock did in a boot in which it was wrong, one row for each stretch between two jumps: its offset to the
-- time since the boot, and, once that was known, by how much its times were corrected. `known_ms`: when, after it, the
-- clock was right for the first time; from then on the age of what could not be corrected is reckoned.
CREATE TABLE clock (
    id INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL,
    offset_ms INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    wrong INTEGER NOT NULL,
    by_ms INTEGER,
    known_ms INTEGER
) STRICT;

-- Each time a damaged file was set aside: when, where it lies now, and what was read out of it.
CREATE TABLE salvage (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    set_aside TEXT NOT NULL,
    reason TEXT NOT NULL,
    rows_saved INTEGER NOT NULL,
    tables_damaged TEXT NOT NULL
) STRICT;
