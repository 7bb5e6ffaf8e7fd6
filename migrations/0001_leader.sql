-- Who may write. One row, read `for share` by every write transaction: a deposed leader's commit waits for the
-- takeover and then finds another epoch. The expiry lives in a row of its own, so that renewing it conflicts with nobody.
create table leader (
    only_row boolean primary key default true check (only_row),
    instance uuid not null,
    epoch bigint not null check (epoch >= 0)
);
create table leader_expiry (
    only_row boolean primary key default true check (only_row),
    expires_at timestamptz not null
);
insert into leader (instance, epoch) values ('00000000-0000-0000-0000-000000000000', 0);
insert into leader_expiry (expires_at) values (now());
