-- Jobs that report checkpoints, have budgets, and hold extra replicas, each under a lease of its own beside the job's.
alter table jobs
    add column checkpointed_at timestamptz,
    add column evicted_at timestamptz[] not null default '{}',
    add column given_back integer not null default 0 check (given_back >= 0);
alter table leases add column extra boolean not null default false;
drop index leases_one_live_a_job;
create unique index leases_one_live_a_job on leases (job_id) where state <> 'ended' and not extra;
-- What a job holds: asked by the checks whenever jobs change.
create index leases_live_by_job on leases (job_id) where state <> 'ended';
alter table evictions add column extra boolean not null default false;
