-- A ring is a producer too: the session that its records go to, and slots that were not written when they were passed.
ALTER TABLE producer ADD COLUMN ring BLOB NOT NULL DEFAULT x'';

-- Of a session that processes share: how many of them ended in order and how many disappeared, and which calls were in
-- progress then. JSON.
ALTER TABLE session ADD COLUMN processes TEXT NOT NULL DEFAULT '{}';
ALTER TABLE session ADD COLUMN calls_in_progress TEXT NOT NULL DEFAULT '[]';

-- Calls that were cancelled: neither finished nor failed.
ALTER TABLE model ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
