-- Uploads by the tus protocol are found by their ids, also after their end: its last answer may be lost.

-- What the client has said about the file, as it said it.
ALTER TABLE uploads ADD COLUMN metadata TEXT;

ALTER TABLE checkpoints ADD COLUMN upload_id TEXT;
ALTER TABLE datasets ADD COLUMN upload_id TEXT;
CREATE INDEX checkpoints_by_upload ON checkpoints (upload_id) WHERE upload_id IS NOT NULL;
CREATE INDEX datasets_by_upload ON datasets (upload_id) WHERE upload_id IS NOT NULL;
