//! Where a cluster answers, and the few things that can be asked of it from outside.

use crate::SUPERUSER;
use crate::account::without_pg_variables;
use crate::binaries::Binaries;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The port only names the socket's file; nothing listens on TCP.
pub(crate) const PORT: u16 = 5432;

/// A cluster's socket, with the programs that fit its version. Cheap to clone; says nothing about who keeps it running.
#[derive(Clone, Debug)]
pub struct Address {
    binaries: Binaries,
    socket_dir: PathBuf,
}

impl Address {
    pub(crate) fn new(binaries: Binaries, socket_dir: PathBuf) -> Address {
        Address { binaries, socket_dir }
    }

    /// Directory of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// URL of one database, as sqlx and libpq read it.
    pub fn url(&self, database: &str) -> String {
        // The path holds plain characters only (see `directory::socket_dir`), so nothing needs escaping.
        let socket_dir = self.socket_dir.display();
        format!("postgres:///{database}?host={socket_dir}&port={PORT}&user={SUPERUSER}&sslmode=disable")
    }

    /// Creates a database unless it is there. Names are plain: `a-z`, `0-9`, `_`, at most 63.
    pub fn ensure_database(&self, name: &str) -> Result<()> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        ensure!(plain && (1..=63).contains(&name.len()), "{name:?} is no name for a database");
        let ask = format!("select 1 from pg_database where datname = '{name}'");
        let answer = run(self.psql("postgres").args(["-tAc", &ask])).context("look for the database")?;
        if answer.trim() == "1" {
            return Ok(());
        }
        let mut createdb = self.client("createdb");
        match run(createdb.args(["--template=template0", name])) {
            // Somebody else was faster.
            Err(error) if format!("{error:#}").contains("already exists") => Ok(()),
            other => other.map(|_| ()).with_context(|| format!("create database {name}")),
        }
    }

    /// A `psql` bound to one database: quiet, no start-up file, stops at the first error.
    pub fn psql(&self, database: &str) -> Command {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]);
        psql
    }

    /// Whether the server answers: asks for TLS, which it declines, so nothing is logged and no role is needed.
    pub(crate) fn answers(&self) -> bool {
        self.ask().is_ok()
    }

    fn ask(&self) -> std::io::Result<()> {
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
        let mut stream = UnixStream::connect(self.socket_dir.join(format!(".s.PGSQL.{PORT}")))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&SSL_REQUEST)?;
        stream.read_exact(&mut [0u8])
    }

    /// One of Postgres's programs, bound to this cluster.
    pub(crate) fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.program(name));
        without_pg_variables(&mut command).env("LC_ALL", "C").current_dir("/");
        command.arg("-h").arg(&self.socket_dir).args(["-p", &PORT.to_string(), "-U", SUPERUSER]);
        command
    }
}

/// Runs a program to its end and returns what it printed, or its complaint.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("run {name}"))?;
    if !status.success() {
        let said = [stdout, stderr].concat();
        bail!("{name} ended with {status}: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
