-- Who did what, or was refused: one row a call, appended and never changed. The trigger keeps even our own code from it.
create table audit (
    seq bigint generated always as identity primary key,
    at timestamptz not null,
    -- The identity's id; empty where nobody was known.
    who text not null,
    name text not null,
    role text,
    -- Method and route, e.g. 'POST /v1/jobs/{id}/cancel', and what its path names.
    action text not null,
    target text,
    address text not null,
    request_id text not null,
    outcome text not null check (outcome in ('allowed', 'refused', 'failed')),
    status smallint not null,
    -- The stable code of a refusal.
    code text,
    before jsonb,
    after jsonb
);
create index audit_who on audit (who, seq);
create index audit_at on audit using brin (at);

create function audit_stays() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is only appended to' using errcode = 'restrict_violation';
end $$;
create trigger audit_stays before update or delete or truncate on audit
    for each statement execute function audit_stays();
