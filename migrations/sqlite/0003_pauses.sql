-- A waiting job that the machine has let down is not claimed before this time.
ALTER TABLE jobs ADD COLUMN not_before INTEGER CHECK (not_before IS NULL OR state = 'queued');
