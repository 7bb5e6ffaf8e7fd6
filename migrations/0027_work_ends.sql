-- How the work of jobs ended that the agents run: the run a job's replicas are in, and one row a run that is over.
alter table jobs add column restarts integer not null default 0 check (restarts >= 0);

create table work_ends (
    lease_id uuid not null,
    run integer not null check (run >= 0),
    job_id uuid not null,
    attempt integer not null,
    at timestamptz not null,
    failure text,
    replicas jsonb not null,
    primary key (lease_id, run)
);
create index work_ends_by_job on work_ends (job_id, at);
