-- Nodes and their chips. A chip's lease epoch only grows, and every change of it names the epoch it was decided from.
create table nodes (
    id text primary key,
    ordinal bigint not null unique,
    session uuid not null,
    boot_id text not null,
    unknown_since timestamptz,
    facts jsonb not null
);
create table chips (
    id text primary key,
    node_id text not null references nodes (id),
    number bigint not null unique,
    device_class text not null,
    lease_epoch bigint not null check (lease_epoch >= 0),
    health jsonb not null,
    quarantine jsonb,
    facts jsonb not null
);
create index chips_by_node on chips (node_id);

create function lease_epoch_only_grows() returns trigger language plpgsql as $$
begin
    raise exception 'lease epoch of chip % would go from % to %', old.id, old.lease_epoch, new.lease_epoch
        using errcode = 'check_violation', constraint = 'lease_epoch_only_grows';
end $$;
create trigger lease_epoch_only_grows before update on chips
    for each row when (new.lease_epoch < old.lease_epoch) execute function lease_epoch_only_grows();
