-- Keys, uploaded files and what makes requests repeatable. Times are milliseconds since the epoch, JSON is TEXT.

CREATE TABLE api_keys (
    id            TEXT    PRIMARY KEY NOT NULL,
    tenant        TEXT    NOT NULL,
    scope         TEXT    NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    label         TEXT    NOT NULL,
    secret_sha256 BLOB    NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER
) STRICT;

CREATE TABLE checkpoints (
    id         TEXT    PRIMARY KEY NOT NULL,
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),
    blob_key   TEXT    NOT NULL UNIQUE,
    labels     TEXT    NOT NULL CHECK (json_valid(labels)),
    header     TEXT    NOT NULL CHECK (json_valid(header)),
    created_at INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

CREATE TABLE datasets (
    id           TEXT    PRIMARY KEY NOT NULL,
    tenant       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    sha256       TEXT    NOT NULL CHECK (length(sha256) = 64),
    bytes        INTEGER NOT NULL CHECK (bytes >= 0),
    blob_key     TEXT    NOT NULL UNIQUE,
    labels       TEXT    NOT NULL CHECK (json_valid(labels)),
    state        TEXT    NOT NULL CHECK (state IN ('validating', 'ready', 'invalid')),
    facts        TEXT    CHECK (json_valid(facts)),
    problem      TEXT    CHECK (json_valid(problem)),
    attempts     INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER,
    created_at   INTEGER NOT NULL,
    validated_at INTEGER,
    UNIQUE (tenant, name),
    CHECK ((state = 'ready') = (facts IS NOT NULL)),
    CHECK ((state = 'invalid') = (problem IS NOT NULL))
) STRICT;

CREATE INDEX datasets_to_validate ON datasets (created_at) WHERE state = 'validating';

-- Unfinished uploads; `acknowledged` bytes of the staging file are on disk for certain.
CREATE TABLE uploads (
    id           TEXT    PRIMARY KEY NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('checkpoint', 'dataset')),
    tenant       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    acknowledged INTEGER NOT NULL CHECK (acknowledged >= 0),
    total        INTEGER CHECK (total >= acknowledged),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    UNIQUE (kind, tenant, name)
) STRICT;

CREATE INDEX uploads_by_expiry ON uploads (expires_at);

-- Requests that carried an Idempotency-Key: the job each has queued (which may be deleted before the key expires), and
-- the answer it got; without an answer the server ended before it was written down.
CREATE TABLE idempotency_keys (
    tenant      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    job_id      TEXT    NOT NULL,
    answer      BLOB,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
