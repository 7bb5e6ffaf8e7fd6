-- Leases. A live lease needs a live job (the foreign key on `live`), and a job has at most one.
create table leases (
    id uuid primary key,
    job_id uuid not null references jobs (id),
    job_live boolean generated always as (case when state = 'ended' then null else true end) stored,
    attempt integer not null check (attempt > 0),
    state text not null check (state in ('active', 'revoking', 'ended')),
    cause jsonb check ((cause is null) = (state = 'active')),
    granted_at timestamptz not null,
    expires_at timestamptz,
    ends_at timestamptz,
    deadline timestamptz check ((deadline is not null) = (state = 'revoking')),
    ended_at timestamptz check ((ended_at is not null) = (state = 'ended')),
    vacated boolean not null check (not vacated or state = 'ended'),
    confirmed text[] not null,
    placements jsonb not null,
    foreign key (job_id, job_live) references jobs (id, live)
);
create unique index leases_one_live_a_job on leases (job_id) where state <> 'ended';
create index leases_in_memory on leases (id) where not vacated;
