-- Networks, key pairs, and what instances are told of themselves.

CREATE INDEX IF NOT EXISTS instance_store_by_layer ON instance_store (layer);

CREATE TABLE vpcs (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    cidr TEXT NOT NULL,
    is_default INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX default_vpc ON vpcs (region, owner) WHERE is_default;

CREATE TABLE subnets (
    id TEXT PRIMARY KEY,
    vpc TEXT NOT NULL REFERENCES vpcs (id),
    zone TEXT NOT NULL,
    cidr TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    UNIQUE (vpc, cidr)
) STRICT;
CREATE UNIQUE INDEX default_subnet ON subnets (vpc, zone) WHERE is_default;

CREATE TABLE security_groups (
    id TEXT PRIMARY KEY,
    vpc TEXT NOT NULL REFERENCES vpcs (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    UNIQUE (vpc, name)
) STRICT;

-- Each instance has one, from its launch until it is terminated.
CREATE TABLE interfaces (
    id TEXT PRIMARY KEY,
    instance TEXT NOT NULL UNIQUE REFERENCES instances (id),
    subnet TEXT NOT NULL REFERENCES subnets (id),
    -- Private IPv4 address.
    address TEXT NOT NULL,
    mac TEXT NOT NULL,
    attached INTEGER NOT NULL,
    UNIQUE (subnet, address)
) STRICT;

CREATE TABLE interface_groups (
    interface TEXT NOT NULL REFERENCES interfaces (id) ON DELETE CASCADE,
    security_group TEXT NOT NULL REFERENCES security_groups (id),
    PRIMARY KEY (interface, security_group)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_pairs (
    id TEXT PRIMARY KEY,
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    -- rsa, ed25519
    key_type TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    -- In the form of OpenSSH, in one line.
    public_key TEXT NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (region, owner, name)
) STRICT;

-- How the instance's metadata service answers, as JSON.
ALTER TABLE instances ADD COLUMN metadata_options TEXT NOT NULL DEFAULT '{}';
-- The public half of its key pair: the pair itself may be deleted.
ALTER TABLE instances ADD COLUMN public_key TEXT;
-- Who logs in to instances of an image, where its disk says that.
ALTER TABLE images ADD COLUMN login_user TEXT;
