-- The last word: a slot of a chip has one holder. A hold is deleted when its chip is proven vacant, never on a time-out.
create extension if not exists btree_gist;
create table holds (
    lease_id uuid not null references leases (id),
    chip_id text not null references chips (id),
    slots int4range not null check (lower(slots) >= 0 and upper(slots) <= 1000),
    epoch bigint not null,
    vacate_by timestamptz,
    constraint holds_one_holder_a_slot exclude using gist (chip_id with =, slots with &&)
);
create index holds_by_lease on holds (lease_id);
alter table holds set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
