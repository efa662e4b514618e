"""The telemetry model: what a session is, how records are counted, what an export says.

Everything here computes and nothing here acts: no clock, no disk, no socket, no randomness. Time comes in as
an argument, decisions go out as values, and the layers above carry them out. The meaning, the field names and
the quirks are those of xybrid-core's ``telemetry/session`` module; where that leaves something to chance, the
rule is written at the place that decides it.

`session` is the aggregate; `registry` decides which session a record goes to and whether a batch is new;
`ledger` counts what became of every record; `changes` are the values handed to storage.
"""
