-- What lets a new agent in, once: it is exchanged for a credential of the node, which is a token of role 'agent'.
create table join_tokens (
    id text primary key,
    secret_sha256 bytea not null,
    -- The only node it is good for; null: any that has no credential yet.
    node text,
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    used_for text
);
create index tokens_by_node on tokens (node) where node is not null and revoked_at is null;
