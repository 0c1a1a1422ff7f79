-- Groups of jobs that are compared: a grid of ensembles, methods, targets and seeds.

CREATE TABLE comparisons (
    id         TEXT    PRIMARY KEY NOT NULL,
    tenant     TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    quick      INTEGER NOT NULL CHECK (quick IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX comparisons_of_tenant ON comparisons (tenant, id);

-- `job_id` is the latest job of the run: a retry takes its place; none once the job has been deleted. Seeds go up to
-- 2^64 - 1 and are therefore text.
CREATE TABLE comparison_runs (
    comparison_id TEXT    NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    ensemble      TEXT    NOT NULL,
    method        TEXT    NOT NULL,
    target        TEXT    NOT NULL,
    seed          TEXT    NOT NULL,
    job_id        TEXT    REFERENCES jobs (id) ON DELETE SET NULL,
    PRIMARY KEY (comparison_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX comparison_runs_by_job ON comparison_runs (job_id) WHERE job_id IS NOT NULL;

-- What a key stands for may be a job or a comparison.
ALTER TABLE idempotency_keys RENAME COLUMN job_id TO made_id;
