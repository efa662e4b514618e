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
