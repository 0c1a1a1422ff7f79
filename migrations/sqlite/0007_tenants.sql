-- Tenants share a server: each in its turn, none more than its limits.

-- When a tenant was last served, as a count of turns: the lowest is next.
CREATE TABLE tenant_turns (
    tenant  TEXT    PRIMARY KEY NOT NULL,
    job     INTEGER NOT NULL DEFAULT 0,
    dataset INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What a tenant may take where that is not the server's default; 0 stands for no limit.
CREATE TABLE tenant_limits (
    tenant   TEXT    NOT NULL,
    resource TEXT    NOT NULL CHECK (resource IN ('bytes', 'files', 'uploads', 'queued', 'running', 'requests_per_second')),
    most     INTEGER NOT NULL CHECK (most >= 0),
    PRIMARY KEY (tenant, resource)
) STRICT, WITHOUT ROWID;

-- Among the jobs of a tenant those of a higher priority come first; those of a comparison, which are many, let others pass.
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10);
ALTER TABLE jobs ADD COLUMN compared INTEGER NOT NULL DEFAULT 0 CHECK (compared IN (0, 1));
UPDATE jobs SET compared = 1 WHERE id IN (SELECT job_id FROM comparison_runs);
DROP INDEX jobs_to_claim;
CREATE INDEX jobs_to_claim ON jobs (tenant, priority DESC, compared, id) WHERE state = 'queued';

ALTER TABLE api_keys ADD COLUMN expires_at INTEGER;
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;

-- A dataset that could not be read, through no fault of its own, waits a while so that others are read; how often it has.
ALTER TABLE datasets ADD COLUMN not_before INTEGER;
ALTER TABLE datasets ADD COLUMN put_off INTEGER NOT NULL DEFAULT 0 CHECK (put_off >= 0);
