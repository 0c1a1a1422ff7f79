-- What the files beside the database must say of themselves to be its own: `identity` stands in their folder too.
-- `probed_at` is written again and again to see whether writing works.
CREATE TABLE data_folder (
    only      INTEGER PRIMARY KEY CHECK (only = 1),
    identity  TEXT    NOT NULL,
    probed_at INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Bytes of scratch space that a running job has reserved: what it is expected to take at its peak.
ALTER TABLE jobs ADD COLUMN disk_reserved INTEGER NOT NULL DEFAULT 0 CHECK (disk_reserved >= 0);
