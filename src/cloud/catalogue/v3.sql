-- Rules of security groups, access keys, and parameters.

CREATE TABLE security_group_rules (
    id TEXT PRIMARY KEY,
    security_group TEXT NOT NULL REFERENCES security_groups (id) ON DELETE CASCADE,
    -- Whether it is about what an instance sends, or else about what is sent to it.
    is_egress INTEGER NOT NULL,
    -- tcp, udp, icmp, icmpv6, another's number, or -1: all
    protocol TEXT NOT NULL,
    -- Ports, or ICMP's type and code; -1: all
    from_port INTEGER NOT NULL,
    to_port INTEGER NOT NULL,
    -- Who is at the other end: a block of IPv4 or IPv6 addresses, or the id of a security group
    peer TEXT NOT NULL,
    description TEXT,
    UNIQUE (security_group, is_egress, protocol, from_port, to_port, peer)
) STRICT;
CREATE INDEX security_group_rules_by_peer ON security_group_rules (peer);
CREATE INDEX interface_groups_by_group ON interface_groups (security_group);

-- Default groups that are there already get the rules that EC2 gives them.
INSERT INTO security_group_rules
    SELECT 'sgr-0' || lower(hex(randomblob(8))), id, 1, '-1', -1, -1, '0.0.0.0/0', NULL FROM security_groups;
INSERT INTO security_group_rules
    SELECT 'sgr-0' || lower(hex(randomblob(8))), id, 0, '-1', -1, -1, id, NULL FROM security_groups;

-- Who may ask the API, and for which account.
CREATE TABLE access_keys (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    secret TEXT NOT NULL,
    created INTEGER NOT NULL,
    -- Of a temporary one, without which it is good for nothing.
    session_token TEXT,
    expires INTEGER
) STRICT;
CREATE INDEX access_keys_by_account ON access_keys (account);
CREATE INDEX access_keys_by_expiry ON access_keys (expires) WHERE expires IS NOT NULL;

-- Names for values, mostly for images.
CREATE TABLE parameters (
    region TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    -- text, aws:ec2:image
    data_type TEXT NOT NULL,
    description TEXT NOT NULL,
    version INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    PRIMARY KEY (region, owner, name)
) STRICT, WITHOUT ROWID;
-- Those that all accounts see are there once.
CREATE UNIQUE INDEX public_parameters ON parameters (region, name) WHERE substr(name, 1, 5) = '/aws/';
