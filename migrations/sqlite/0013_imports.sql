-- Files that the server fetches from elsewhere. The bytes are those of an upload to the same name until all of them are there.

-- `token` is needed as it is to fetch the file, and forgotten with the end. `etag` says which version has been begun. `due` and `claimed_until`
-- are steady times.
CREATE TABLE imports (
    id            TEXT    PRIMARY KEY NOT NULL,
    tenant        TEXT    NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('checkpoint', 'dataset')),
    name          TEXT    NOT NULL,
    source        TEXT    NOT NULL,
    sha256        TEXT    CHECK (length(sha256) = 64),
    labels        TEXT    NOT NULL CHECK (json_valid(labels)),
    token         TEXT,
    state         TEXT    NOT NULL CHECK (state IN ('waiting', 'succeeded', 'failed')),
    tried         INTEGER NOT NULL DEFAULT 0 CHECK (tried >= 0),
    due           INTEGER,
    claimed_until INTEGER,
    etag          TEXT,
    file_id       TEXT,
    problem       TEXT    CHECK (problem IS NULL OR json_valid(problem)),
    created_at    INTEGER NOT NULL,
    finished_at   INTEGER,
    CHECK ((state = 'waiting') = (due IS NOT NULL)),
    CHECK ((state = 'waiting') = (finished_at IS NULL)),
    CHECK ((state = 'succeeded') = (file_id IS NOT NULL)),
    CHECK (state <> 'failed' OR problem IS NOT NULL),
    CHECK (state = 'waiting' OR (claimed_until IS NULL AND token IS NULL))
) STRICT;

CREATE INDEX imports_of_tenant ON imports (tenant, id);
CREATE INDEX imports_due ON imports (due) WHERE state = 'waiting';
CREATE UNIQUE INDEX imports_by_name ON imports (tenant, kind, name) WHERE state = 'waiting';
CREATE INDEX imports_by_age ON imports (finished_at) WHERE state <> 'waiting';
