-- The append-only log. `seq` is given by the leader and has no gaps; current state is the fold of it.
create table events (
    seq bigint primary key,
    at timestamptz not null,
    epoch bigint not null,
    kind text not null,
    body jsonb not null
);
