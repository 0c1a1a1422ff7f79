-- How fast the devices of a worker are, measured when it starts: a JSON list; plans estimate times by it.
ALTER TABLE workers ADD COLUMN speeds TEXT NOT NULL DEFAULT '[]';
