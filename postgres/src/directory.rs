//! The directories of a cluster: made with the right owner, checked before Postgres can trip over them.

use crate::account::Account;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Longest socket directory: a socket's path may have 107 bytes, and Postgres adds `/.s.PGSQL.5432`.
const SOCKET_DIR_BYTES_MAX: usize = 107 - "/.s.PGSQL.5432".len();

/// Makes the directory that holds the cluster, and what is missing above it, once it is proven that the server's account
/// can reach the place. Returns its real path.
pub(crate) fn prepare(dir: &Path, account: &Account) -> Result<PathBuf> {
    let dir = std::path::absolute(dir).with_context(|| format!("find {}", dir.display()))?;
    // The root exists.
    let existing = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let existing = existing.canonicalize().with_context(|| format!("find {}", existing.display()))?;
    check_reachable(&existing, account)?;
    if !dir.exists() {
        let parent = dir.parent().unwrap_or(Path::new("/"));
        make_parents(parent).with_context(|| format!("create {}", parent.display()))?;
        make_owned(&dir, account)?;
    }
    dir.canonicalize().with_context(|| format!("find {}", dir.display()))
}

/// Makes `dir` with mode 0700 for the server's account. One that exists must already be so.
pub(crate) fn make_owned(dir: &Path, account: &Account) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) if account.dropped => {
            chown(dir, Some(account.uid), Some(account.gid)).with_context(|| format!("give {} away", dir.display()))
        }
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_owned(dir, account),
        Err(error) => Err(error).with_context(|| format!("create {}", dir.display())),
    }
}

/// Refuses a directory that is somebody else's (or a link to one), and closes it to others.
pub(crate) fn check_owned(dir: &Path, account: &Account) -> Result<()> {
    let found = fs::symlink_metadata(dir).with_context(|| format!("look at {}", dir.display()))?;
    ensure!(found.is_dir(), "{} is not a directory", dir.display());
    ensure!(
        found.uid() == account.uid,
        "{} belongs to uid {}, but the database runs as `{}` (uid {}); start as its owner, or give it over with: \
         chown -R {} {}",
        dir.display(),
        found.uid(),
        account.name,
        account.uid,
        account.name,
        dir.display()
    );
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).with_context(|| format!("close {}", dir.display()))?;
    }
    Ok(())
}

/// The directory of the socket: inside the cluster's own when its path is short and plain, else a short one elsewhere
/// (paths of sockets are limited, and Postgres reads the setting as a list).
pub(crate) fn socket_dir(cluster_dir: &Path, account: &Account) -> Result<PathBuf> {
    let inside = cluster_dir.join("socket");
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if inside.to_str().is_some_and(|text| text.len() <= SOCKET_DIR_BYTES_MAX && plain(text)) {
        make_owned(&inside, account)?;
        return Ok(inside);
    }
    let mut hasher = DefaultHasher::new();
    cluster_dir.hash(&mut hasher);
    let name = format!("{:016x}", hasher.finish());
    let dir = if account.dropped && make_parents(Path::new("/run/chiptide")).is_ok() {
        Path::new("/run/chiptide").join(name)
    } else {
        PathBuf::from(format!("/tmp/chiptide-{}-{name}", account.uid))
    };
    make_owned(&dir, account)?;
    Ok(dir)
}

/// Makes missing directories with mode 0711, so that the server's account can pass through them.
fn make_parents(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_parents(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o711)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Names the first directory on the way to `dir` that the server's account may not pass.
fn check_reachable(dir: &Path, account: &Account) -> Result<()> {
    let way: Vec<&Path> = dir.ancestors().collect();
    for step in way.into_iter().rev() {
        let found = fs::metadata(step).with_context(|| format!("look at {}", step.display()))?;
        if !may_search(&found, account) {
            bail!(
                "the database runs as `{}`, which may not pass through {} (mode {:04o}, owner uid {}); open it with: \
                 chmod a+x {}, or choose a data directory such as /var/lib/chiptide",
                account.name,
                step.display(),
                found.mode() & 0o7777,
                found.uid(),
                step.display()
            );
        }
    }
    Ok(())
}

fn may_search(found: &Metadata, account: &Account) -> bool {
    let class = match () {
        () if found.uid() == account.uid => 0o100,
        () if found.gid() == account.gid => 0o010,
        // A caller that keeps its own account keeps its other groups too; the kernel will say if they do not help.
        () if !account.dropped => 0o011,
        () => 0o001,
    };
    found.mode() & class != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_parent_is_named_with_the_way_out() {
        let top = tempfile::tempdir().expect("a directory");
        fs::set_permissions(top.path(), Permissions::from_mode(0o711)).expect("mode");
        let home = top.path().join("home");
        DirBuilder::new().mode(0o700).create(&home).expect("home");
        let stranger = Account { name: "postgres".into(), uid: 65_533, gid: 65_533, dropped: true };
        let error = check_reachable(&home, &stranger).expect_err("closed").to_string();
        assert!(error.contains(&format!("chmod a+x {}", home.display())), "{error}");
    }

    #[test]
    fn long_or_odd_paths_get_a_short_socket_directory() {
        let account = Account::of_server().expect("an account");
        for name in ["x".repeat(120), "with, comma".to_owned()] {
            let dir = socket_dir(Path::new(&format!("/nowhere/{name}")), &account).expect("a directory");
            assert!(dir.as_os_str().len() <= SOCKET_DIR_BYTES_MAX, "{}", dir.display());
            fs::remove_dir(dir).expect("removed");
        }
    }
}
