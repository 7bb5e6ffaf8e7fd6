-- Why the victims of a promise were chosen: what they cost, and the plan that would have been next.
alter table claims add column choice jsonb not null default '{}';
