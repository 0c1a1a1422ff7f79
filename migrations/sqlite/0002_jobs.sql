-- Jobs, what they read, what they reported, what they made, and who computes.
-- Times are milliseconds since the epoch, JSON is TEXT.

CREATE TABLE jobs (
    id                  TEXT    PRIMARY KEY NOT NULL,
    tenant              TEXT    NOT NULL,
    resolved            TEXT    NOT NULL CHECK (json_valid(resolved)),
    plan                TEXT    NOT NULL CHECK (json_valid(plan)),
    labels              TEXT    NOT NULL CHECK (json_valid(labels)),
    device              TEXT    NOT NULL,
    max_runtime_ms      INTEGER NOT NULL CHECK (max_runtime_ms > 0),
    retry_of            TEXT    REFERENCES jobs (id) ON DELETE SET NULL,
    created_at          INTEGER NOT NULL,
    -- The state, as domain::job has it.
    state               TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempt             INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    stalled             INTEGER NOT NULL DEFAULT 0 CHECK (stalled >= 0),
    ran_ms              INTEGER NOT NULL DEFAULT 0 CHECK (ran_ms >= 0),
    worker              TEXT,
    claimed_at          INTEGER,
    lease_until         INTEGER,
    cancel_requested    INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    finished_at         INTEGER,
    error               TEXT    CHECK (json_valid(error)),
    -- What attempts have reported.
    started_at          INTEGER,
    furthest_phase      INTEGER NOT NULL DEFAULT -1,
    phases              TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(phases)),
    progress            TEXT    CHECK (json_valid(progress)),
    checkpoint_key      TEXT,
    checkpoint_epoch    INTEGER,
    CHECK ((state = 'running') = (worker IS NOT NULL)),
    CHECK ((state = 'running') = (claimed_at IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'failed') = (error IS NOT NULL)),
    CHECK (state = 'running' OR cancel_requested = 0),
    CHECK ((checkpoint_key IS NULL) = (checkpoint_epoch IS NULL))
) STRICT;

CREATE INDEX jobs_to_claim ON jobs (id) WHERE state = 'queued';
CREATE INDEX jobs_by_lease ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_by_checkpoint ON jobs (checkpoint_key) WHERE checkpoint_key IS NOT NULL;
CREATE INDEX jobs_by_retry_of ON jobs (retry_of) WHERE retry_of IS NOT NULL;

-- A job that has ended never changes its mind, whatever the code does.
CREATE TRIGGER jobs_end_once
BEFORE UPDATE OF state, attempt, finished_at, error ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'the job has ended');
END;

-- The files a job reads. Name and digest outlive the files, which may be deleted once the job has ended.
CREATE TABLE job_inputs (
    job_id        TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    role          TEXT    NOT NULL CHECK (role IN ('member', 'dataset', 'validation', 'test')),
    position      INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    sha256        TEXT    NOT NULL,
    checkpoint_id TEXT    REFERENCES checkpoints (id) ON DELETE SET NULL,
    dataset_id    TEXT    REFERENCES datasets (id) ON DELETE SET NULL,
    PRIMARY KEY (job_id, role, position),
    CHECK (checkpoint_id IS NULL OR role = 'member'),
    CHECK (dataset_id IS NULL OR role <> 'member')
) STRICT;

CREATE INDEX job_inputs_by_checkpoint ON job_inputs (checkpoint_id) WHERE checkpoint_id IS NOT NULL;
CREATE INDEX job_inputs_by_dataset ON job_inputs (dataset_id) WHERE dataset_id IS NOT NULL;

CREATE TRIGGER checkpoints_in_use
BEFORE DELETE ON checkpoints
WHEN EXISTS (
    SELECT 1 FROM job_inputs JOIN jobs ON jobs.id = job_inputs.job_id
    WHERE job_inputs.checkpoint_id = OLD.id AND jobs.state IN ('queued', 'running')
)
BEGIN
    SELECT RAISE(ABORT, 'the checkpoint is used by an unfinished job');
END;

CREATE TRIGGER datasets_in_use
BEFORE DELETE ON datasets
WHEN EXISTS (
    SELECT 1 FROM job_inputs JOIN jobs ON jobs.id = job_inputs.job_id
    WHERE job_inputs.dataset_id = OLD.id AND jobs.state IN ('queued', 'running')
)
BEGIN
    SELECT RAISE(ABORT, 'the dataset is used by an unfinished job');
END;

-- Append-only; `seq` counts from 1 without gaps.
CREATE TABLE job_events (
    job_id  TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq     INTEGER NOT NULL CHECK (seq > 0),
    at      INTEGER NOT NULL,
    type    TEXT    NOT NULL CHECK (type IN ('state', 'progress', 'metric', 'warning', 'log')),
    attempt INTEGER NOT NULL,
    data    TEXT    NOT NULL CHECK (json_valid(data)),
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_events_append_only
BEFORE UPDATE ON job_events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TABLE job_metrics (
    job_id TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    epoch  INTEGER NOT NULL,
    data   TEXT    NOT NULL CHECK (json_valid(data)),
    PRIMARY KEY (job_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_artifacts (
    job_id     TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    blob_key   TEXT    NOT NULL UNIQUE,
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),
    media_type TEXT    NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

-- Worker processes; one that has stopped to send heartbeats offers nothing.
CREATE TABLE workers (
    id           TEXT    PRIMARY KEY NOT NULL,
    host         TEXT    NOT NULL,
    pid          INTEGER NOT NULL,
    version      TEXT    NOT NULL,
    slots        INTEGER NOT NULL,
    devices      TEXT    NOT NULL CHECK (json_valid(devices)),
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL
) STRICT;
