//! A private Postgres: the cluster that Chiptide runs for itself when nobody gives it a database.
//!
//! It finds the distribution's own binaries, makes a cluster in a directory, and supervises one postmaster that answers
//! on a Unix socket only. It never downloads, never touches a system cluster, never deletes a lock file and never
//! speaks SQL beyond "does this database exist": migrations and queries are the daemon's. Everything here blocks; there
//! is no async. Why there is such a thing at all: `docs/adr/0002-private-postgres.md`.

mod account;
mod address;
mod binaries;
mod cluster;
mod directory;
mod lockfile;
mod postmaster;
mod replica;
mod settings;
mod throwaway;

pub use address::Address;
pub use cluster::{Cluster, Options};
pub use replica::copy;
pub use throwaway::{Throwaway, throwaway};

/// The superuser of every cluster made here, and the account Chiptide connects as.
pub const SUPERUSER: &str = "chiptide";
