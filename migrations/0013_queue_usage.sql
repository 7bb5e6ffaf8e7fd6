-- What each queue used of late (an average that decays, in 2^-32 slots), and when its jobs were preempted within a day:
-- fair share and budgets go on after a restart as if there had been none.
create table queue_usage (
    queue text not null,
    device_class text not null,
    average bigint not null check (average >= 0),
    as_of timestamptz not null,
    primary key (queue, device_class)
) with (fillfactor = 20);
create table queue_preemptions (
    queue text primary key,
    at timestamptz[] not null
);
