-- One row a lease that was taken from its job, or lost: why, for whom, what it cost, and the weighing behind it. Written
-- with the event; answers "why was I evicted", and feeds dashboards.
create table evictions (
    lease_id uuid primary key,
    job_id uuid not null,
    attempt integer not null,
    queue text not null,
    at timestamptz not null,
    deadline timestamptz not null check (deadline >= at),
    cause text not null,
    detail text,
    for_job uuid,
    chips integer not null check (chips >= 0),
    slots bigint not null check (slots >= 0),
    lost_slot_ms bigint not null check (lost_slot_ms >= 0),
    choice jsonb
);
create index evictions_by_job on evictions (job_id, at);
create index evictions_by_age on evictions using brin (at);
