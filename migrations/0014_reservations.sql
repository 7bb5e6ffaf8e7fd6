-- Chips set aside for a job that waits, or by the calendar of the policy.
create table reservations (
    holder_kind text not null check (holder_kind in ('job', 'calendar')),
    holder text not null,
    since timestamptz not null,
    starts_at timestamptz not null,
    ends_at timestamptz check ((ends_at is not null) = (holder_kind = 'calendar')),
    open boolean not null,
    placements jsonb not null,
    primary key (holder_kind, holder)
);
-- Jobs that were moved for a live gang (each is moved once for it), and when the last move was ordered.
create table consolidations (
    gang uuid primary key,
    moved uuid[] not null
);
create table last_consolidation (
    only_row boolean primary key default true check (only_row),
    at timestamptz not null
);
