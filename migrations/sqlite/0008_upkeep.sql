-- Jobs, checkpoints and datasets that retention leaves alone, by their ids.
CREATE TABLE pins (
    id         TEXT    PRIMARY KEY NOT NULL,
    tenant     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Leases and pauses count the machine's own time. For each of its starts the place of that start on a common scale, in milliseconds.
CREATE TABLE boots (
    boot  TEXT    PRIMARY KEY NOT NULL,
    start INTEGER NOT NULL
) STRICT;

-- When a worker last sent a sign of life, on that scale.
ALTER TABLE workers ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
