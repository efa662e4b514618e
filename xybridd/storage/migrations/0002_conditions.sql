-- Latencies by condition (heat, power, hardware), and when the conditions of a session changed.

ALTER TABLE model ADD COLUMN conditions BLOB NOT NULL DEFAULT x'';
ALTER TABLE session ADD COLUMN transitions TEXT NOT NULL DEFAULT '[]';
