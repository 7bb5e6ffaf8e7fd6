-- Bearer tokens: the secret is shown once and kept as SHA-256 only.
create table tokens (
    id text primary key,
    secret_sha256 bytea not null,
    role text not null check (role in ('admin')),
    created_at timestamptz not null default now()
);
