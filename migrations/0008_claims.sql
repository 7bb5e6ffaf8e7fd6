-- Promises: chips kept for a pending job while their last holders leave. A slot is promised to one job.
create table claims (
    job_id uuid primary key references jobs (id),
    since timestamptz not null,
    deadline timestamptz not null,
    victims uuid[] not null,
    placements jsonb not null
);
create table claimed_slots (
    job_id uuid not null references claims (job_id) on delete cascade,
    chip bigint not null references chips (number),
    slots int4range not null check (lower(slots) >= 0 and upper(slots) <= 1000),
    constraint claimed_slots_one_job_a_slot exclude using gist (chip with =, slots with &&)
);
create index claimed_slots_by_job on claimed_slots (job_id);
