-- What jobs have asked for so far, as placement has learned it: after a restart it places as it would have without one.
create table demand (
    only_row boolean primary key default true check (only_row),
    body jsonb not null
) with (fillfactor = 20);
