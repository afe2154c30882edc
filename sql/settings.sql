-- settings: their defaults, who may set them, and what is not there yet
SELECT name, reset_val, unit, context FROM pg_settings
  WHERE name LIKE 'weir.%' AND name NOT LIKE 'weir.debug%'
    AND name NOT IN ('weir.checkpoint_interval', 'weir.state_memory') ORDER BY name;
SET weir.compression = lz4;
SET weir.compression = zstd;
RESET weir.compression;
SET weir.max_workers = 3;
\set VERBOSITY sqlstate
ALTER SYSTEM SET weir.max_workers = 0;
ALTER SYSTEM SET weir.state_memory = '1kB';
ALTER SYSTEM SET weir.checkpoint_interval = '1ms';
\set VERBOSITY default
-- the prefix is ours
SET weir.max_lag = 0;
SET weir.anything = 'x';
-- 17 words it otherwise
\set VERBOSITY sqlstate
ALTER SYSTEM SET weir.max_held_log = -2;
