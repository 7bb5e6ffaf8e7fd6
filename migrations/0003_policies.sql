-- Every policy that was ever in force; the highest version is.
create table policies (
    version bigint primary key,
    applied_at timestamptz not null,
    body jsonb not null
);
