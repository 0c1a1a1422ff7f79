-- A job may read one more file: inputs with a member's own logits, which prove what network the members are. It is uploaded as a
-- checkpoint is. Only the text of two checks changes, no row (https://sqlite.org/lang_altertable.html, section 7).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(replace(replace(sql,
    'CHECK (role IN (''member'', ''dataset'', ''validation'', ''test''))',
    'CHECK (role IN (''member'', ''dataset'', ''validation'', ''test'', ''reference''))'),
    'CHECK (checkpoint_id IS NULL OR role = ''member'')', 'CHECK (checkpoint_id IS NULL OR role IN (''member'', ''reference''))'),
    'CHECK (dataset_id IS NULL OR role <> ''member'')', 'CHECK (dataset_id IS NULL OR role NOT IN (''member'', ''reference''))')
WHERE type = 'table' AND name = 'job_inputs';
PRAGMA writable_schema = RESET;
