//! The account that the server runs as. Postgres refuses uid 0, so root hands over to the `postgres` account.

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};
use rustix::process::Signal;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Who the server is on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    /// Name in the passwd database.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Primary group; a dropped account keeps no other.
    pub(crate) gid: u32,
    /// Whether the caller is root and children change to this account.
    pub(crate) dropped: bool,
}

impl Account {
    /// The caller's own account, or `postgres` when the caller is root.
    pub(crate) fn of_server() -> Result<Account> {
        let caller = Uid::effective();
        if caller.is_root() {
            let user = User::from_name("postgres").context("look up the account `postgres`")?;
            let Some(user) = user.filter(|user| !user.uid.is_root()) else {
                bail!(
                    "Postgres refuses to run as root and this machine has no account `postgres` to run it as; make one \
                     with: adduser --system --group --home /var/lib/postgresql postgres (Debian's package \
                     `postgresql` does it too)"
                );
            };
            return Ok(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), dropped: true });
        }
        let Some(user) = User::from_uid(caller).context("look up this process's account")? else {
            bail!(
                "Postgres needs an account with a name and uid {caller} has none in the passwd database; run as an \
                 account that has one, or give the daemon a database with --database-url"
            );
        };
        Ok(Account { name: user.name, uid: caller.as_raw(), gid: Gid::effective().as_raw(), dropped: false })
    }

    /// Makes `command` a child of the server's account: that uid and gid and no other group, a process group of its own
    /// (so a Ctrl-C in the terminal reaches us, not the database), none of our `PG…` variables, and `on_parent_death`
    /// as its signal when the *thread* that spawns it ends.
    #[allow(unsafe_code)]
    pub(crate) fn adopt(&self, command: &mut Command, on_parent_death: Signal) {
        without_pg_variables(command).env("LC_ALL", "C").process_group(0);
        if self.dropped {
            command.uid(self.uid).gid(self.gid);
        }
        let parent = rustix::process::getpid();
        let arm = move || {
            rustix::process::set_parent_process_death_signal(Some(on_parent_death))?;
            // The parent may have died between the fork and the line above; then no signal will ever come.
            match rustix::process::getppid() {
                Some(now) if now == parent => Ok(()),
                _ => Err(std::io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error())),
            }
        };
        // SAFETY: the closure runs between fork and exec; it makes two system calls and allocates nothing. It runs after
        // the change of uid, which is required: that change clears the death signal.
        unsafe {
            command.pre_exec(arm);
        }
    }
}

/// Removes every `PG…` variable: a PGPORT or PGOPTIONS of the caller's must not reach a private cluster.
pub(crate) fn without_pg_variables(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
    command
}
