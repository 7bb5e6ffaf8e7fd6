-- The eviction ladder: whether a lease has had its one extension, and the steps by which it was emptied.
alter table leases add column extended boolean not null default false;

create table eviction_steps (
    seq bigint not null,
    lease_id uuid not null,
    step text not null check (step in ('notice', 'told', 'extension', 'checkpoint', 'terminated', 'killed', 'stuck', 'empty',
        'ended', 'vacant', 'quarantined')),
    at timestamptz not null,
    node text,
    detail text
);
create index eviction_steps_by_lease on eviction_steps (lease_id, seq);
