-- Where a column may be NULL its check says so: to SQLite before 3.45 `json_valid(NULL)` is false, and its integrity check and
-- dumps fail on such rows. Only the text of the checks changes, no row (https://sqlite.org/lang_altertable.html, section 7).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(replace(replace(replace(sql,
    'CHECK (json_valid(facts))', 'CHECK (facts IS NULL OR json_valid(facts))'),
    'CHECK (json_valid(problem))', 'CHECK (problem IS NULL OR json_valid(problem))'),
    'CHECK (json_valid(error))', 'CHECK (error IS NULL OR json_valid(error))'),
    'CHECK (json_valid(progress))', 'CHECK (progress IS NULL OR json_valid(progress))')
WHERE type = 'table' AND name IN ('datasets', 'jobs');
PRAGMA writable_schema = RESET;

-- What the files beside the database must say of themselves to be its own: `identity` stands in their folder too.
-- `probed_at` is written again and again to see whether writing works.
CREATE TABLE data_folder (
    only      INTEGER PRIMARY KEY CHECK (only = 1),
    identity  TEXT    NOT NULL,
    probed_at INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Bytes of scratch space that a running job has reserved: what it is expected to take at its peak.
ALTER TABLE jobs ADD COLUMN disk_reserved INTEGER NOT NULL DEFAULT 0 CHECK (disk_reserved >= 0);
