-- Answers already given, written in the transaction of their effect. The same key replays its answer.
create table idempotency_keys (
    principal text not null,
    key text not null,
    request_hash bytea not null,
    status smallint not null,
    body text not null,
    created_at timestamptz not null,
    primary key (principal, key)
);
create index idempotency_keys_by_age on idempotency_keys using brin (created_at);
