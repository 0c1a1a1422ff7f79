-- Where a tenant is called when something ends, and every call with what became of it.

-- Calls are signed, so the secret is kept as it is. After a change the one before signs too, for a while. `disabled` says why nothing is called.
CREATE TABLE webhooks (
    id              TEXT    PRIMARY KEY NOT NULL,
    tenant          TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    events          TEXT    NOT NULL CHECK (json_valid(events)),
    description     TEXT    NOT NULL,
    secret          BLOB    NOT NULL CHECK (length(secret) BETWEEN 24 AND 64),
    previous_secret BLOB,
    previous_until  INTEGER,
    disabled        TEXT    CHECK (disabled IN ('by_owner', 'gone')),
    created_at      INTEGER NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
) STRICT;

CREATE INDEX webhooks_of_tenant ON webhooks (tenant, id);

-- A delivery is written in the transaction that ends what it tells of: one is never without the other. `body` is what is sent, the same each
-- time. `due` and `claimed_until` are steady times; whoever sends holds the delivery until then.
CREATE TABLE webhook_deliveries (
    id            TEXT    PRIMARY KEY NOT NULL,
    webhook_id    TEXT    NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event         TEXT    NOT NULL,
    body          TEXT    NOT NULL CHECK (json_valid(body)),
    state         TEXT    NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    tried         INTEGER NOT NULL DEFAULT 0 CHECK (tried >= 0),
    due           INTEGER,
    claimed_until INTEGER,
    calls         TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(calls)),
    created_at    INTEGER NOT NULL,
    CHECK ((state = 'waiting') = (due IS NOT NULL)),
    CHECK (claimed_until IS NULL OR state = 'waiting')
) STRICT;

CREATE INDEX webhook_deliveries_of_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_claimed ON webhook_deliveries (webhook_id, claimed_until) WHERE claimed_until IS NOT NULL;
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at) WHERE state <> 'waiting';
