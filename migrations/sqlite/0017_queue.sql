-- Jobs for devices that a worker does not have are passed over however many they are, and a tenant's running ones are counted without
-- reading its others.
DROP INDEX jobs_to_claim;
CREATE INDEX jobs_to_claim ON jobs (tenant, device, priority DESC, compared, id) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (tenant) WHERE state = 'running';
