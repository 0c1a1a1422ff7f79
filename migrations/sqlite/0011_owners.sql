-- Who queued a job: what was written on the key that was used.
ALTER TABLE jobs ADD COLUMN owner TEXT;
