-- Leases. A live lease needs a live job, a job has at most one, and a lease that has ended stays so.
create table leases (
    id uuid primary key,
    job_id uuid not null,
    attempt integer not null check (attempt > 0),
    state text not null check (state in ('active', 'revoking', 'ended')),
    cause jsonb check ((cause is null) = (state = 'active')),
    granted_at timestamptz not null,
    expires_at timestamptz,
    ends_at timestamptz,
    deadline timestamptz check ((deadline is not null) = (state = 'revoking')),
    ended_at timestamptz check ((ended_at is not null) = (state = 'ended')),
    vacate_by timestamptz check ((vacate_by is not null) = (state = 'ended')),
    confirmed text[] not null,
    placements jsonb not null
);
create unique index leases_one_live_a_job on leases (job_id) where state <> 'ended';

-- Checked once a statement, from both sides, not once a row as a foreign key on (job, live) would: that was a third of a
-- round's time. Writers do not race each other here: each holds the leader's row.
create function live_lease_needs_live_job() returns trigger language plpgsql as $$
declare
    orphan uuid;
begin
    if tg_table_name = 'leases' then
        select c.id into orphan from changed c
            where c.state <> 'ended' and not exists (select from jobs j where j.id = c.job_id and j.live) limit 1;
    else
        select l.id into orphan from changed c join leases l on l.job_id = c.id and l.state <> 'ended'
            where not c.live limit 1;
    end if;
    if orphan is not null then
        raise exception 'live lease % would have no live job', orphan
            using errcode = 'foreign_key_violation', constraint = 'live_lease_needs_live_job';
    end if;
    return null;
end $$;
create trigger live_lease_needs_live_job after insert on leases
    referencing new table as changed for each statement execute function live_lease_needs_live_job();
create trigger live_lease_needs_live_job after update on jobs
    referencing new table as changed for each statement execute function live_lease_needs_live_job();

create function ended_lease_stays_ended() returns trigger language plpgsql as $$
begin
    raise exception 'lease % has ended and cannot change', old.id
        using errcode = 'check_violation', constraint = 'ended_lease_stays_ended';
end $$;
create trigger ended_lease_stays_ended before update on leases
    for each row when (old.state = 'ended') execute function ended_lease_stays_ended();
