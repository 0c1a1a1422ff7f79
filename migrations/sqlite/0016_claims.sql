-- Each claim looks for jobs whose datasets turned out to be invalid: from those few, not from the many jobs.
CREATE INDEX datasets_invalid ON datasets (id) WHERE state = 'invalid';
