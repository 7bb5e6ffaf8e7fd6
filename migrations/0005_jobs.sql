-- Jobs, live and over. `place` is the order of service within a priority.
create table jobs (
    id uuid primary key,
    place bigint not null unique,
    kind text not null check (kind in ('training', 'inference')),
    name text not null,
    queue text not null,
    priority integer not null,
    state text not null
        check (state in ('pending', 'leased', 'running', 'preempting', 'succeeded', 'failed', 'cancelled')),
    live boolean not null
        generated always as (state in ('pending', 'leased', 'running', 'preempting')) stored,
    reason text check (reason is null or state = 'failed'),
    lease_id uuid check ((lease_id is not null) = (state in ('leased', 'running', 'preempting'))),
    deadline timestamptz check ((deadline is not null) = (state = 'preempting')),
    attempt integer not null check (attempt >= 0),
    preemptions integer not null check (preemptions >= 0),
    revision bigint not null,
    submitted_at timestamptz not null,
    changed_at timestamptz not null,
    labels jsonb not null,
    spec jsonb not null
);
create index jobs_live on jobs (place) where live;
