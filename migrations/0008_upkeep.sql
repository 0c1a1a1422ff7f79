-- Jobs, checkpoints and datasets that retention leaves alone, by their ids.
CREATE TABLE pins (
    id         TEXT    PRIMARY KEY NOT NULL,
    tenant     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
