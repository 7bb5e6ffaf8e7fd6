-- What a token allows, and how long: a role, the queues of a scheduler, the node of an agent. A token is never removed:
-- it is revoked, so that what was done with it keeps a name.
alter table tokens
    drop constraint tokens_role_check,
    add constraint tokens_role_check check (role in ('admin', 'operator', 'scheduler', 'viewer', 'agent')),
    add column name text not null default 'first admin',
    add column queues text[] not null default '{}',
    add column node text,
    add column created_by text,
    add column expires_at timestamptz,
    add column revoked_at timestamptz,
    add column last_used_at timestamptz,
    -- Grows with every change but that of last_used_at; daemons compare the sum, and read the table again when it differs.
    add column version bigint not null default 1,
    add constraint tokens_queues_check check (queues = '{}' or role = 'scheduler'),
    add constraint tokens_node_check check ((node is not null) = (role = 'agent'));
alter table tokens alter column name drop default;
