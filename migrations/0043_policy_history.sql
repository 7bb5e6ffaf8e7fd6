-- Who put each policy in force and why; and under which of them each lease and each eviction was decided (0: before this
-- was recorded).
alter table policies
    add column author text not null default '',
    add column reason text not null default '';
alter table leases add column policy_version bigint not null default 0;
alter table evictions add column policy_version bigint not null default 0;
