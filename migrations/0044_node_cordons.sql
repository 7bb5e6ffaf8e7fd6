-- Who wants nothing more granted on a node, why, since when, and by when it shall be empty.
alter table nodes add column cordon jsonb;
