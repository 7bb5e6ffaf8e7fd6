//! The server's settings: what we need it to be, and what our load is tuned for.

use crate::address::PORT;
use std::path::Path;

/// Settings for our load: many small durable commits, bulk inserts, partitions that come and go. Given on the command
/// line at every start, so that no file of the cluster has to be edited or migrated.
pub(crate) fn own(durable: bool, socket_dir: &Path) -> Vec<(String, String)> {
    let socket_dir = socket_dir.display().to_string();
    let port = PORT.to_string();
    let mut settings = vec![
        ("listen_addresses", ""),
        ("unix_socket_directories", &socket_dir),
        ("unix_socket_permissions", "0700"),
        ("port", &port),
        ("autovacuum_naptime", "10s"),
        ("wal_compression", "on"),
        ("jit", "off"),
        ("random_page_cost", "1.1"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("logging_collector", "off"),
        ("log_checkpoints", "off"),
        ("log_line_prefix", "%m [%p] %a "),
    ];
    settings.extend(if durable {
        [
            ("shared_buffers", "256MB"),
            ("max_connections", "100"),
            ("max_wal_size", "4GB"),
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
        ]
    } else {
        // Many test threads share a throw-away cluster, each with a pool of its own.
        [
            ("shared_buffers", "32MB"),
            ("max_connections", "300"),
            ("max_wal_size", "1GB"),
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
        ]
    });
    settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
