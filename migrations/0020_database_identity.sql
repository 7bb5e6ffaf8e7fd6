-- Which database last held this state: a failover to a replica is a new timeline, a copy restored elsewhere another system
-- identifier. Kept, so that a daemon notices that the database under it is not the one it was.
create table database_identity (
    only_row boolean primary key default true check (only_row),
    system_identifier bigint not null,
    timeline bigint not null check (timeline > 0),
    noted_at timestamptz not null
);
