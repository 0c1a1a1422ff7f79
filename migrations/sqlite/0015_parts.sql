-- Unfinished uploads whose bytes are in a bucket, so that any server may go on with them.

-- What an upload becomes, from its first byte on: `blob_key` names the object, and this beginning of the upload (another one has another
-- key). `multipart_id` is the bucket's name for it, once a part was sent. `tail_key` names the object that holds what is acknowledged
-- behind the parts. `completed` says that the object is there. A row outlives its upload until its parts are given up in the bucket.
CREATE TABLE multipart_uploads (
    upload_id    TEXT    PRIMARY KEY NOT NULL,
    blob_key     TEXT    NOT NULL,
    multipart_id TEXT,
    tail_key     TEXT,
    completed    INTEGER NOT NULL DEFAULT 0 CHECK (completed IN (0, 1))
) STRICT;

-- The parts that are stored; `number` counts from 0.
CREATE TABLE upload_parts (
    upload_id TEXT    NOT NULL REFERENCES multipart_uploads (upload_id) ON DELETE CASCADE,
    number    INTEGER NOT NULL CHECK (number >= 0),
    etag      TEXT    NOT NULL,
    bytes     INTEGER NOT NULL CHECK (bytes > 0),
    PRIMARY KEY (upload_id, number)
) STRICT;
