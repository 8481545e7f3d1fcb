-- Instances without machines, snapshots written block by block, tokens of requests, changes of volumes, tasks.

-- machine: a process runs it; stub: it runs in the catalogue alone.
ALTER TABLE instances ADD COLUMN backend TEXT NOT NULL DEFAULT 'machine';

-- Beside its protection from deregistration, which is 2 where a day has to pass after it was taken away: until when it
-- cannot be deregistered all the same.
ALTER TABLE images ADD COLUMN protected_until INTEGER;

-- Snapshots that are pending because they are written block by block. Their layers are open until they are completed.
CREATE TABLE started_snapshots (
    snapshot TEXT PRIMARY KEY REFERENCES snapshots (id) ON DELETE CASCADE,
    layer TEXT NOT NULL REFERENCES layers (id),
    -- Milliseconds without a block after which it is given up.
    patience INTEGER NOT NULL,
    -- When it was started, or its last block was written.
    touched INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX started_snapshots_by_layer ON started_snapshots (layer);

-- Their blocks that are durable.
CREATE TABLE written_blocks (
    snapshot TEXT NOT NULL REFERENCES started_snapshots (snapshot) ON DELETE CASCADE,
    block INTEGER NOT NULL,
    -- SHA-256.
    checksum BLOB NOT NULL,
    PRIMARY KEY (snapshot, block)
) STRICT, WITHOUT ROWID;

-- What requests with a client token have made: the same request again makes nothing more.
CREATE TABLE tokens (
    owner TEXT NOT NULL,
    region TEXT NOT NULL,
    -- As EC2 names it, as in CreateVolume.
    action TEXT NOT NULL,
    token TEXT NOT NULL,
    -- SHA-256 of the request, in hexadecimal digits.
    request_hash TEXT NOT NULL,
    -- Ids, as a JSON array.
    resources TEXT NOT NULL,
    created INTEGER NOT NULL,
    -- Which made them: where it is undone, the token goes with them.
    operation TEXT,
    PRIMARY KEY (owner, region, action, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_age ON tokens (created);
CREATE INDEX tokens_by_operation ON tokens (operation) WHERE operation IS NOT NULL;

-- The last change of each volume that was changed.
CREATE TABLE volume_modifications (
    volume TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    -- modifying, completed
    state TEXT NOT NULL,
    original_size_gib INTEGER NOT NULL,
    original_type TEXT NOT NULL,
    original_iops INTEGER,
    original_throughput INTEGER,
    target_size_gib INTEGER NOT NULL,
    target_type TEXT NOT NULL,
    target_iops INTEGER,
    target_throughput INTEGER,
    started INTEGER NOT NULL,
    ended INTEGER,
    operation TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX volume_modifications_by_operation ON volume_modifications (operation) WHERE operation IS NOT NULL;

-- Imports, exports, and images that are stored.
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    -- import-image, import-snapshot, export-image, store-image
    kind TEXT NOT NULL,
    -- active, completed, failed, cancelled
    state TEXT NOT NULL,
    -- Percent.
    progress INTEGER NOT NULL,
    message TEXT,
    description TEXT NOT NULL,
    -- The image or snapshot that it is about.
    resource TEXT,
    -- The file that is read or written.
    path TEXT NOT NULL,
    -- Of the file, as in VMDK.
    format TEXT,
    bucket TEXT,
    object_key TEXT,
    started INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    operation TEXT
) STRICT;
CREATE INDEX tasks_by_owner ON tasks (region, owner, kind, started);
CREATE INDEX tasks_by_operation ON tasks (operation) WHERE operation IS NOT NULL;
