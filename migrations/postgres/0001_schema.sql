-- The whole schema, as the migrations of SQLite up to 16 have made it there. Times are milliseconds since the epoch, JSON is TEXT, and what
-- is ordered by ids or names is ordered by bytes, whatever the database's locale.

-- Refuses what a trigger watches; the argument says why.
CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'EN001', MESSAGE = TG_ARGV[0];
END $$;

-- Says that something was written, for those who wait for it: once for each transaction.
CREATE FUNCTION say_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('engraft', TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;

CREATE TABLE api_keys (
    id            TEXT COLLATE "C" PRIMARY KEY,
    tenant        TEXT COLLATE "C" NOT NULL,
    scope         TEXT    NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    label         TEXT    NOT NULL,
    secret_sha256 BYTEA   NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    created_at    BIGINT  NOT NULL,
    revoked_at    BIGINT,
    expires_at    BIGINT,
    last_used_at  BIGINT
);

CREATE TABLE checkpoints (
    id         TEXT COLLATE "C" PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    bytes      BIGINT  NOT NULL CHECK (bytes >= 0),
    blob_key   TEXT COLLATE "C" NOT NULL UNIQUE,
    labels     TEXT    NOT NULL CHECK (labels::json IS NOT NULL),
    header     TEXT    NOT NULL CHECK (header::json IS NOT NULL),
    created_at BIGINT  NOT NULL,
    upload_id  TEXT,
    UNIQUE (tenant, name)
);

CREATE INDEX checkpoints_by_upload ON checkpoints (upload_id) WHERE upload_id IS NOT NULL;

CREATE TABLE datasets (
    id           TEXT COLLATE "C" PRIMARY KEY,
    tenant       TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    sha256       TEXT    NOT NULL CHECK (length(sha256) = 64),
    bytes        BIGINT  NOT NULL CHECK (bytes >= 0),
    blob_key     TEXT COLLATE "C" NOT NULL UNIQUE,
    labels       TEXT    NOT NULL CHECK (labels::json IS NOT NULL),
    state        TEXT    NOT NULL CHECK (state IN ('validating', 'ready', 'invalid')),
    facts        TEXT    CHECK (facts IS NULL OR facts::json IS NOT NULL),
    problem      TEXT    CHECK (problem IS NULL OR problem::json IS NOT NULL),
    attempts     BIGINT  NOT NULL DEFAULT 0,
    lease_until  BIGINT,
    created_at   BIGINT  NOT NULL,
    validated_at BIGINT,
    -- A dataset that could not be read, through no fault of its own, waits a while so that others are read; how often it has.
    not_before   BIGINT,
    put_off      BIGINT  NOT NULL DEFAULT 0 CHECK (put_off >= 0),
    upload_id    TEXT,
    UNIQUE (tenant, name),
    CHECK ((state = 'ready') = (facts IS NOT NULL)),
    CHECK ((state = 'invalid') = (problem IS NOT NULL))
);

CREATE INDEX datasets_to_validate ON datasets (created_at) WHERE state = 'validating';
CREATE INDEX datasets_invalid ON datasets (id) WHERE state = 'invalid';
CREATE INDEX datasets_by_upload ON datasets (upload_id) WHERE upload_id IS NOT NULL;
CREATE TRIGGER datasets_changed AFTER INSERT OR UPDATE OR DELETE ON datasets EXECUTE FUNCTION say_changed();

-- Unfinished uploads; `acknowledged` bytes are stored for certain. `metadata` is what a client of the tus protocol has said about the file.
CREATE TABLE uploads (
    id           TEXT COLLATE "C" PRIMARY KEY,
    kind         TEXT    NOT NULL CHECK (kind IN ('checkpoint', 'dataset')),
    tenant       TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    acknowledged BIGINT  NOT NULL CHECK (acknowledged >= 0),
    total        BIGINT  CHECK (total >= acknowledged),
    created_at   BIGINT  NOT NULL,
    expires_at   BIGINT  NOT NULL,
    metadata     TEXT,
    UNIQUE (kind, tenant, name)
);

CREATE INDEX uploads_by_expiry ON uploads (expires_at);

-- Unfinished uploads whose bytes are in a bucket, so that any server may go on with them. `blob_key` names the object that it becomes, and
-- this beginning of the upload (another one has another key). `multipart_id` is the bucket's name for it, once a part was sent. `tail_key`
-- names the object that holds what is acknowledged behind the parts. `completed` says that the object is there. A row outlives its upload
-- until its parts are given up in the bucket.
CREATE TABLE multipart_uploads (
    upload_id    TEXT COLLATE "C" PRIMARY KEY,
    blob_key     TEXT    NOT NULL,
    multipart_id TEXT,
    tail_key     TEXT,
    completed    BOOLEAN NOT NULL DEFAULT FALSE
);

-- The parts that are stored; `number` counts from 0.
CREATE TABLE upload_parts (
    upload_id TEXT COLLATE "C" NOT NULL REFERENCES multipart_uploads (upload_id) ON DELETE CASCADE,
    number    BIGINT  NOT NULL CHECK (number >= 0),
    etag      TEXT    NOT NULL,
    bytes     BIGINT  NOT NULL CHECK (bytes > 0),
    PRIMARY KEY (upload_id, number)
);

-- Requests that carried an Idempotency-Key: what each has made (which may be deleted before the key expires), and the answer it got; without
-- an answer the server ended before it was written down.
CREATE TABLE idempotency_keys (
    tenant      TEXT COLLATE "C" NOT NULL,
    key         TEXT COLLATE "C" NOT NULL,
    fingerprint BYTEA   NOT NULL CHECK (length(fingerprint) = 32),
    made_id     TEXT    NOT NULL,
    answer      BYTEA,
    created_at  BIGINT  NOT NULL,
    expires_at  BIGINT  NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

CREATE TABLE jobs (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    tenant              TEXT COLLATE "C" NOT NULL,
    resolved            TEXT    NOT NULL CHECK (resolved::json IS NOT NULL),
    plan                TEXT    NOT NULL CHECK (plan::json IS NOT NULL),
    labels              TEXT    NOT NULL CHECK (labels::json IS NOT NULL),
    device              TEXT    NOT NULL,
    max_runtime_ms      BIGINT  NOT NULL CHECK (max_runtime_ms > 0),
    retry_of            TEXT COLLATE "C" REFERENCES jobs (id) ON DELETE SET NULL,
    created_at          BIGINT  NOT NULL,
    -- The state, as domain::job has it.
    state               TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempt             BIGINT  NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    stalled             BIGINT  NOT NULL DEFAULT 0 CHECK (stalled >= 0),
    ran_ms              BIGINT  NOT NULL DEFAULT 0 CHECK (ran_ms >= 0),
    worker              TEXT,
    claimed_at          BIGINT,
    lease_until         BIGINT,
    cancel_requested    BOOLEAN NOT NULL DEFAULT FALSE,
    finished_at         BIGINT,
    error               TEXT    CHECK (error IS NULL OR error::json IS NOT NULL),
    not_before          BIGINT  CHECK (not_before IS NULL OR state = 'queued'),
    -- What attempts have reported.
    started_at          BIGINT,
    furthest_phase      BIGINT  NOT NULL DEFAULT -1,
    phases              TEXT    NOT NULL DEFAULT '[]' CHECK (phases::json IS NOT NULL),
    progress            TEXT    CHECK (progress IS NULL OR progress::json IS NOT NULL),
    checkpoint_key      TEXT COLLATE "C",
    checkpoint_epoch    BIGINT,
    -- Bytes of scratch space that a running job has reserved.
    disk_reserved       BIGINT  NOT NULL DEFAULT 0 CHECK (disk_reserved >= 0),
    -- Among the jobs of a tenant those of a higher priority come first; those of a comparison, which are many, let others pass.
    priority            BIGINT  NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10),
    compared            BOOLEAN NOT NULL DEFAULT FALSE,
    -- Who queued it: what was written on the key that was used.
    owner               TEXT,
    CHECK ((state = 'running') = (worker IS NOT NULL)),
    CHECK ((state = 'running') = (claimed_at IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'failed') = (error IS NOT NULL)),
    CHECK (state = 'running' OR NOT cancel_requested),
    CHECK ((checkpoint_key IS NULL) = (checkpoint_epoch IS NULL))
);

CREATE INDEX jobs_to_claim ON jobs (tenant, priority DESC, compared, id) WHERE state = 'queued';
CREATE INDEX jobs_by_lease ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_by_checkpoint ON jobs (checkpoint_key) WHERE checkpoint_key IS NOT NULL;
CREATE INDEX jobs_by_retry_of ON jobs (retry_of) WHERE retry_of IS NOT NULL;

-- A job that has ended never changes its mind, whatever the code does.
CREATE TRIGGER jobs_end_once BEFORE UPDATE OF state, attempt, finished_at, error ON jobs FOR EACH ROW
WHEN (OLD.state IN ('succeeded', 'failed', 'cancelled')) EXECUTE FUNCTION refuse('the job has ended');
CREATE TRIGGER jobs_changed AFTER INSERT OR UPDATE OR DELETE ON jobs EXECUTE FUNCTION say_changed();

-- The files a job reads. Name and digest outlive the files, which may be deleted once the job has ended.
CREATE TABLE job_inputs (
    job_id        TEXT COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    role          TEXT COLLATE "C" NOT NULL CHECK (role IN ('member', 'dataset', 'validation', 'test', 'reference')),
    position      BIGINT  NOT NULL,
    name          TEXT    NOT NULL,
    sha256        TEXT    NOT NULL,
    checkpoint_id TEXT COLLATE "C" REFERENCES checkpoints (id) ON DELETE SET NULL,
    dataset_id    TEXT COLLATE "C" REFERENCES datasets (id) ON DELETE SET NULL,
    PRIMARY KEY (job_id, role, position),
    CHECK (checkpoint_id IS NULL OR role IN ('member', 'reference')),
    CHECK (dataset_id IS NULL OR role NOT IN ('member', 'reference'))
);

CREATE INDEX job_inputs_by_checkpoint ON job_inputs (checkpoint_id) WHERE checkpoint_id IS NOT NULL;
CREATE INDEX job_inputs_by_dataset ON job_inputs (dataset_id) WHERE dataset_id IS NOT NULL;

CREATE FUNCTION refuse_files_in_use() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM job_inputs JOIN jobs ON jobs.id = job_inputs.job_id
        WHERE (job_inputs.checkpoint_id = OLD.id OR job_inputs.dataset_id = OLD.id) AND jobs.state IN ('queued', 'running')
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'EN001', MESSAGE = 'the file is used by an unfinished job';
    END IF;
    RETURN OLD;
END $$;

CREATE TRIGGER checkpoints_in_use BEFORE DELETE ON checkpoints FOR EACH ROW EXECUTE FUNCTION refuse_files_in_use();
CREATE TRIGGER datasets_in_use BEFORE DELETE ON datasets FOR EACH ROW EXECUTE FUNCTION refuse_files_in_use();

-- Append-only; `seq` counts from 1 without gaps.
CREATE TABLE job_events (
    job_id  TEXT COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq     BIGINT  NOT NULL CHECK (seq > 0),
    at      BIGINT  NOT NULL,
    type    TEXT    NOT NULL CHECK (type IN ('state', 'progress', 'metric', 'warning', 'log')),
    attempt BIGINT  NOT NULL,
    data    TEXT    NOT NULL CHECK (data::json IS NOT NULL),
    PRIMARY KEY (job_id, seq)
);

CREATE TRIGGER job_events_append_only BEFORE UPDATE ON job_events FOR EACH ROW EXECUTE FUNCTION refuse('events are never changed');
CREATE TRIGGER job_events_changed AFTER INSERT ON job_events EXECUTE FUNCTION say_changed();

CREATE TABLE job_metrics (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    epoch  BIGINT  NOT NULL,
    data   TEXT    NOT NULL CHECK (data::json IS NOT NULL),
    PRIMARY KEY (job_id, epoch)
);

CREATE TABLE job_artifacts (
    job_id     TEXT COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name       TEXT COLLATE "C" NOT NULL,
    blob_key   TEXT COLLATE "C" NOT NULL UNIQUE,
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    bytes      BIGINT  NOT NULL CHECK (bytes >= 0),
    media_type TEXT    NOT NULL,
    PRIMARY KEY (job_id, name)
);

-- Worker processes; one that has stopped to send heartbeats offers nothing. `speeds` is how fast their devices are.
CREATE TABLE workers (
    id           TEXT COLLATE "C" PRIMARY KEY,
    host         TEXT    NOT NULL,
    pid          BIGINT  NOT NULL,
    version      TEXT    NOT NULL,
    slots        BIGINT  NOT NULL,
    devices      TEXT    NOT NULL CHECK (devices::json IS NOT NULL),
    started_at   BIGINT  NOT NULL,
    heartbeat_at BIGINT  NOT NULL,
    seen         BIGINT  NOT NULL DEFAULT 0,
    speeds       TEXT    NOT NULL DEFAULT '[]'
);

-- Groups of jobs that are compared: a grid of ensembles, methods, targets and seeds.
CREATE TABLE comparisons (
    id         TEXT COLLATE "C" PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    title      TEXT    NOT NULL,
    quick      BOOLEAN NOT NULL,
    created_at BIGINT  NOT NULL
);

CREATE INDEX comparisons_of_tenant ON comparisons (tenant, id);

-- `job_id` is the latest job of the run: a retry takes its place; none once the job has been deleted. Seeds go up to 2^64 - 1 and are
-- therefore text.
CREATE TABLE comparison_runs (
    comparison_id TEXT COLLATE "C" NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    position      BIGINT  NOT NULL,
    ensemble      TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    target        TEXT    NOT NULL,
    seed          TEXT    NOT NULL,
    job_id        TEXT COLLATE "C" REFERENCES jobs (id) ON DELETE SET NULL,
    PRIMARY KEY (comparison_id, position)
);

CREATE INDEX comparison_runs_by_job ON comparison_runs (job_id) WHERE job_id IS NOT NULL;
CREATE TRIGGER comparison_runs_changed AFTER INSERT OR UPDATE OR DELETE ON comparison_runs EXECUTE FUNCTION say_changed();

-- What the files beside the database must say of themselves to be its own: `identity` stands in their folder too. `probed_at` is written
-- again and again to see whether writing works.
CREATE TABLE data_folder (
    "only"    BIGINT  PRIMARY KEY CHECK ("only" = 1),
    identity  TEXT    NOT NULL,
    probed_at BIGINT  NOT NULL DEFAULT 0
);

-- When a tenant was last served, as a count of turns: the lowest is next. Within an hour from the first reading on, each has a budget of time
-- for which its datasets are read.
CREATE TABLE tenant_turns (
    tenant        TEXT COLLATE "C" PRIMARY KEY,
    job           BIGINT  NOT NULL DEFAULT 0,
    dataset       BIGINT  NOT NULL DEFAULT 0,
    reading_since BIGINT  NOT NULL DEFAULT 0,
    reading_ms    BIGINT  NOT NULL DEFAULT 0 CHECK (reading_ms >= 0)
);

-- What a tenant may take where that is not the server's default; 0 stands for no limit.
CREATE TABLE tenant_limits (
    tenant   TEXT COLLATE "C" NOT NULL,
    resource TEXT    NOT NULL CHECK (resource IN ('bytes', 'files', 'uploads', 'queued', 'running', 'requests_per_second', 'reading_seconds')),
    most     BIGINT  NOT NULL CHECK (most >= 0),
    PRIMARY KEY (tenant, resource)
);

-- Jobs, checkpoints and datasets that retention leaves alone, by their ids.
CREATE TABLE pins (
    id         TEXT COLLATE "C" PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT  NOT NULL
);

-- Where a database has no time of its own: for each start of the machine its place on a common scale. Here leases count the database's time.
CREATE TABLE boots (
    boot  TEXT    PRIMARY KEY,
    start BIGINT  NOT NULL
);

-- Where a tenant is called when something ends, and every call with what became of it. Calls are signed, so the secret is kept as it is. After
-- a change the one before signs too, for a while. `disabled` says why nothing is called.
CREATE TABLE webhooks (
    id              TEXT COLLATE "C" PRIMARY KEY,
    tenant          TEXT COLLATE "C" NOT NULL,
    url             TEXT    NOT NULL,
    events          TEXT    NOT NULL CHECK (events::json IS NOT NULL),
    description     TEXT    NOT NULL,
    secret          BYTEA   NOT NULL CHECK (length(secret) BETWEEN 24 AND 64),
    previous_secret BYTEA,
    previous_until  BIGINT,
    disabled        TEXT    CHECK (disabled IN ('by_owner', 'gone')),
    created_at      BIGINT  NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);

CREATE INDEX webhooks_of_tenant ON webhooks (tenant, id);

-- A delivery is written in the transaction that ends what it tells of: one is never without the other. `body` is what is sent, the same each
-- time. `due` and `claimed_until` are steady times; whoever sends holds the delivery until then.
CREATE TABLE webhook_deliveries (
    id            TEXT COLLATE "C" PRIMARY KEY,
    webhook_id    TEXT COLLATE "C" NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event         TEXT    NOT NULL,
    body          TEXT    NOT NULL CHECK (body::json IS NOT NULL),
    state         TEXT    NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    tried         BIGINT  NOT NULL DEFAULT 0 CHECK (tried >= 0),
    due           BIGINT,
    claimed_until BIGINT,
    calls         TEXT    NOT NULL DEFAULT '[]' CHECK (calls::json IS NOT NULL),
    created_at    BIGINT  NOT NULL,
    CHECK ((state = 'waiting') = (due IS NOT NULL)),
    CHECK (claimed_until IS NULL OR state = 'waiting')
);

CREATE INDEX webhook_deliveries_of_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_claimed ON webhook_deliveries (webhook_id, claimed_until) WHERE claimed_until IS NOT NULL;
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at) WHERE state <> 'waiting';

-- Files that the server fetches from elsewhere. The bytes are those of an upload to the same name until all of them are there. `token` is
-- needed as it is to fetch the file, and forgotten with the end. `etag` says which version has been begun. `due` and `claimed_until` are
-- steady times.
CREATE TABLE imports (
    id            TEXT COLLATE "C" PRIMARY KEY,
    tenant        TEXT COLLATE "C" NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('checkpoint', 'dataset')),
    name          TEXT COLLATE "C" NOT NULL,
    source        TEXT    NOT NULL,
    sha256        TEXT    CHECK (length(sha256) = 64),
    labels        TEXT    NOT NULL CHECK (labels::json IS NOT NULL),
    token         TEXT,
    state         TEXT    NOT NULL CHECK (state IN ('waiting', 'succeeded', 'failed')),
    tried         BIGINT  NOT NULL DEFAULT 0 CHECK (tried >= 0),
    due           BIGINT,
    claimed_until BIGINT,
    etag          TEXT,
    file_id       TEXT,
    problem       TEXT    CHECK (problem IS NULL OR problem::json IS NOT NULL),
    created_at    BIGINT  NOT NULL,
    finished_at   BIGINT,
    CHECK ((state = 'waiting') = (due IS NOT NULL)),
    CHECK ((state = 'waiting') = (finished_at IS NULL)),
    CHECK ((state = 'succeeded') = (file_id IS NOT NULL)),
    CHECK (state <> 'failed' OR problem IS NOT NULL),
    CHECK (state = 'waiting' OR (claimed_until IS NULL AND token IS NULL))
);

CREATE INDEX imports_of_tenant ON imports (tenant, id);
CREATE INDEX imports_due ON imports (due) WHERE state = 'waiting';
CREATE UNIQUE INDEX imports_by_name ON imports (tenant, kind, name) WHERE state = 'waiting';
CREATE INDEX imports_by_age ON imports (finished_at) WHERE state <> 'waiting';
CREATE TRIGGER imports_changed AFTER INSERT OR UPDATE OR DELETE ON imports EXECUTE FUNCTION say_changed();
