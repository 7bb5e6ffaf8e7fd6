-- The last word: a slot of a chip has one holder. A hold is inserted with its lease and deleted when its chip is proven
-- vacant, never on a time-out; nothing else is ever done to it. `chip` is `chips.number`; there are no foreign keys,
-- because the same transaction writes the lease and raises the chip's epoch, and fails unless it finds the chip.
create extension if not exists btree_gist;
create table holds (
    lease_id uuid not null,
    chip bigint not null,
    slots int4range not null check (lower(slots) >= 0 and upper(slots) <= 1000),
    epoch bigint not null,
    constraint holds_one_holder_a_slot exclude using gist (chip with =, slots with &&)
);
alter table holds set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
