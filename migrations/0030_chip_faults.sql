-- What is known of a chip's faults, open and past: a bounded list, oldest first.
alter table chips add column faults jsonb not null default '[]';
