-- Reading datasets takes processor time, which tenants share, too: within an hour from the first reading on, each has a budget of it.
ALTER TABLE tenant_turns ADD COLUMN reading_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tenant_turns ADD COLUMN reading_ms INTEGER NOT NULL DEFAULT 0 CHECK (reading_ms >= 0);

CREATE TABLE limits (
    tenant   TEXT    NOT NULL,
    resource TEXT    NOT NULL CHECK (resource IN ('bytes', 'files', 'uploads', 'queued', 'running', 'requests_per_second', 'reading_seconds')),
    most     INTEGER NOT NULL CHECK (most >= 0),
    PRIMARY KEY (tenant, resource)
) STRICT, WITHOUT ROWID;
INSERT INTO limits SELECT tenant, resource, most FROM tenant_limits;
DROP TABLE tenant_limits;
ALTER TABLE limits RENAME TO tenant_limits;
