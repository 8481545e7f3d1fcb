-- The first form of the catalogue. Times are milliseconds since 1970-01-01 UTC; sizes are bytes unless they end in _gib.
-- `operation` names the operation under way that made a row or is changing it (see operations).

CREATE TABLE zones (
    name TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    zone_id TEXT NOT NULL,
    -- availability-zone, local-zone, wavelength-zone, outpost
    zone_type TEXT NOT NULL,
    -- The availability zone that another kind of zone belongs to.
    parent TEXT
) STRICT;
CREATE INDEX zones_by_region ON zones (region);

-- Long work under way. Whoever does it holds a lock on the file of this name in `ops`; nobody does: it was cut off.
CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    what TEXT NOT NULL,
    started INTEGER NOT NULL
) STRICT;

-- Layers: the files `layers/ID.data` and `layers/ID.map`.
CREATE TABLE layers (
    id TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    -- making: the files may not be whole; open: a volume's; sealed: never changes again; dead: the files are to go.
    state TEXT NOT NULL CHECK (state IN ('making', 'open', 'sealed', 'dead')),
    parent TEXT REFERENCES layers (id),
    operation TEXT
) STRICT;
CREATE INDEX layers_by_parent ON layers (parent);

CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    layer TEXT REFERENCES layers (id),
    size_gib INTEGER NOT NULL,
    volume TEXT,
    description TEXT NOT NULL,
    -- pending, completed, error
    state TEXT NOT NULL,
    state_reason TEXT,
    started INTEGER NOT NULL,
    operation TEXT
) STRICT;
CREATE INDEX snapshots_by_layer ON snapshots (layer);
CREATE INDEX snapshots_by_owner ON snapshots (region, owner);

CREATE TABLE volumes (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    zone TEXT NOT NULL,
    layer TEXT REFERENCES layers (id),
    size_gib INTEGER NOT NULL,
    snapshot TEXT,
    volume_type TEXT NOT NULL,
    iops INTEGER,
    throughput INTEGER,
    -- creating, available, in-use, deleting
    state TEXT NOT NULL,
    created INTEGER NOT NULL,
    operation TEXT
) STRICT;
CREATE INDEX volumes_by_layer ON volumes (layer);
CREATE INDEX volumes_by_owner ON volumes (region, owner);

CREATE TABLE images (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- machine, kernel, ramdisk
    image_type TEXT NOT NULL,
    -- pending, available, failed, disabled, deregistered
    state TEXT NOT NULL,
    state_reason TEXT,
    architecture TEXT NOT NULL,
    -- hvm, paravirtual
    virtualization_type TEXT NOT NULL,
    -- legacy-bios, uefi, uefi-preferred, or not said
    boot_mode TEXT,
    -- windows, or nothing
    platform TEXT,
    platform_details TEXT NOT NULL,
    -- ebs, instance-store
    root_device_type TEXT NOT NULL,
    root_device_name TEXT,
    kernel TEXT,
    ramdisk TEXT,
    -- Of an instance-store image: what its root volume, or its kernel, is made of.
    template TEXT REFERENCES layers (id),
    location TEXT NOT NULL,
    -- The block device mapping, as EC2's JSON.
    mapping TEXT NOT NULL,
    is_public INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    deprecated INTEGER,
    deregistered INTEGER,
    source_instance TEXT,
    source_image TEXT,
    source_region TEXT,
    ena_support INTEGER NOT NULL DEFAULT 0,
    imds_support TEXT,
    deregistration_protection INTEGER NOT NULL DEFAULT 0,
    operation TEXT
) STRICT;
-- A name is an account's own for as long as the image is registered.
CREATE UNIQUE INDEX images_by_name ON images (region, owner, name) WHERE state <> 'deregistered' AND state <> 'failed';
CREATE INDEX images_by_region ON images (region, created, id);
CREATE INDEX images_by_template ON images (template) WHERE template IS NOT NULL;

-- Who may launch an image, beside its owner.
CREATE TABLE launch_permissions (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    account TEXT NOT NULL,
    PRIMARY KEY (image, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX launch_permissions_by_account ON launch_permissions (account);

CREATE TABLE product_codes (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    code TEXT NOT NULL,
    -- devpay, marketplace
    kind TEXT NOT NULL,
    PRIMARY KEY (image, code)
) STRICT, WITHOUT ROWID;

-- Products that images are part of, and who sells them: the account that first gave one of its images the code.
CREATE TABLE products (
    code TEXT PRIMARY KEY,
    seller TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Accounts that have accepted the terms of a product.
CREATE TABLE subscriptions (
    account TEXT NOT NULL,
    code TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    PRIMARY KEY (account, code)
) STRICT, WITHOUT ROWID;

-- Names by which the images of an account are known to all, as `amazon`.
CREATE TABLE owner_aliases (
    alias TEXT PRIMARY KEY,
    account TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may make volumes of a snapshot, beside its owner; `all` is everybody.
CREATE TABLE snapshot_permissions (
    snapshot TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    account TEXT NOT NULL,
    PRIMARY KEY (snapshot, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    zone TEXT NOT NULL,
    reservation TEXT NOT NULL,
    launch_index INTEGER NOT NULL,
    image TEXT NOT NULL,
    instance_type TEXT NOT NULL,
    -- pending, running, stopping, stopped, shutting-down, terminated
    state TEXT NOT NULL,
    -- EC2's code and message of the last change of state.
    reason_code TEXT,
    reason TEXT,
    launched INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    architecture TEXT NOT NULL,
    virtualization_type TEXT NOT NULL,
    boot_mode TEXT,
    root_device_type TEXT NOT NULL,
    root_device_name TEXT NOT NULL,
    kernel TEXT,
    ramdisk TEXT,
    key_name TEXT,
    user_data BLOB,
    -- stop, terminate
    shutdown_behavior TEXT NOT NULL,
    api_termination_disabled INTEGER NOT NULL DEFAULT 0,
    api_stop_disabled INTEGER NOT NULL DEFAULT 0,
    -- What its machine is started with that is not EC2's, as JSON.
    options TEXT NOT NULL,
    client_token TEXT,
    request_hash TEXT,
    operation TEXT
) STRICT;
CREATE INDEX instances_by_owner ON instances (region, owner, state);
CREATE INDEX instances_by_token ON instances (owner, client_token) WHERE client_token IS NOT NULL;

CREATE TABLE attachments (
    volume TEXT PRIMARY KEY REFERENCES volumes (id),
    instance TEXT NOT NULL REFERENCES instances (id),
    device TEXT NOT NULL,
    delete_on_termination INTEGER NOT NULL,
    -- attaching, attached, detaching
    state TEXT NOT NULL,
    attached INTEGER NOT NULL,
    UNIQUE (instance, device)
) STRICT, WITHOUT ROWID;

-- Volumes that are an instance's own: an instance-store root, ephemeral disks.
CREATE TABLE instance_store (
    instance TEXT NOT NULL REFERENCES instances (id),
    device TEXT NOT NULL,
    -- NULL: the root.
    ephemeral INTEGER,
    layer TEXT REFERENCES layers (id),
    size INTEGER NOT NULL,
    PRIMARY KEY (instance, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE tags (
    resource TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (resource, key)
) STRICT, WITHOUT ROWID;
