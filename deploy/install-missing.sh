#!/bin/sh
# Installs what Chiptide needs to be built and run and this machine lacks: a C compiler, make, a Postgres server with
# its contrib modules (btree_gist), and for root `ip`. Names each package before it installs it, puts no question, and is silent when
# nothing is missing. Rust it does not install: it says where to get it. It never starts a Postgres: Chiptide runs a
# private one from the same programs.
set -eu

postgres_min=15

say() { echo "install-missing: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# Whether a usable Postgres is here: its server programs, new enough, with the extension that the schema needs.
has_postgres() {
    for dir in /usr/lib/postgresql/*/bin; do
        version=${dir#/usr/lib/postgresql/}
        version=${version%/bin}
        case $version in '' | *[!0-9]*) continue ;; esac
        [ "$version" -ge $postgres_min ] && [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && [ -x "$dir/psql" ] &&
            [ -e "/usr/share/postgresql/$version/extension/btree_gist.control" ] && return 0
    done
    # Elsewhere than on Debian: the programs are on PATH, or pg_config knows them.
    for dir in "$(pg_config --bindir 2>/dev/null || true)" "$(dirname "$(command -v postgres || echo /)")"; do
        [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && [ -x "$dir/psql" ] || continue
        version=$("$dir/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
        [ "${version:-0}" -ge $postgres_min ] && return 0
    done
    return 1
}

if [ "$(id -u)" -eq 0 ]; then
    as_root=''
elif command -v sudo >/dev/null; then
    as_root='sudo'
else
    as_root='none'
fi

updated=''

# install WHY PACKAGE…
install() {
    why=$1
    shift
    command -v apt-get >/dev/null || die "$why is missing, and there is no apt-get here; install it by hand (on Debian: $*)"
    [ "$as_root" != none ] || die "$why is missing; neither root nor sudo is at hand, so run as root: apt-get install --yes $*"
    say "installing $* ($why is missing)"
    if [ -z "$updated" ]; then
        $as_root apt-get -qq update || say "the package lists could not be renewed; trying with the old ones"
        updated=yes
    fi
    log=$(mktemp)
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@" \
        </dev/null >"$log" 2>&1 || { cat "$log" >&2; die "apt-get could not install $*; its own words are above"; }
    rm -f "$log"
}

# Debian makes and starts a cluster on port 5432 when the server is installed; nobody asked for it. A file of our own in
# the drop-in folder says no, and leaves the package's and an administrator's files alone.
no_main_cluster() {
    dropins=/etc/postgresql-common/createcluster.d
    [ "$as_root" != none ] || return 0
    $as_root mkdir -p $dropins
    echo 'create_main_cluster = false' | $as_root tee $dropins/chiptide.conf >/dev/null
}

command -v cargo >/dev/null || die 'Rust is missing, and it is yours to choose from where; see https://rustup.rs'
command -v cc >/dev/null || install 'a C compiler' gcc libc6-dev
command -v make >/dev/null || install 'make' make
# Only root may make network namespaces; without `ip` runs with faults do without them.
[ "$(id -u)" -ne 0 ] || command -v ip >/dev/null || install 'ip, for network namespaces in tests' iproute2
if ! has_postgres; then
    no_main_cluster
    install "a Postgres server, $postgres_min or newer" postgresql
    has_postgres || die "the package postgresql brought no server of version $postgres_min or newer; see https://www.postgresql.org/download/"
fi
