-- Accounts of chip time, folded from the log apart from the rounds: slot-milliseconds by hour, queue, job and device class. The
-- first four amounts of a device class add up to the time that its chips were there; the others are parts of them. `busy` alone
-- does not come from the log but from readings.
create table usage (
    hour timestamptz not null,
    queue text not null,
    -- The nil UUID where the time is no job's.
    job_id uuid not null,
    device_class text not null,
    granted bigint not null default 0,
    vacating bigint not null default 0,
    idle bigint not null default 0,
    out_of_service bigint not null default 0,
    borrowed bigint not null default 0,
    lent bigint not null default 0,
    lost_to_preemption bigint not null default 0,
    lost_to_faults bigint not null default 0,
    busy bigint not null default 0,
    primary key (hour, queue, job_id, device_class)
);

-- How far the log is in the accounts, and what its next events need to be entered: written with the amounts.
create table usage_book (
    only_row boolean primary key default true check (only_row),
    position bigint not null check (position >= 0),
    at timestamptz not null,
    book jsonb not null
);
