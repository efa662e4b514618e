-- Minutes are read by their time, for reports.
CREATE INDEX minute_started ON minute (started_at_ms, id);
