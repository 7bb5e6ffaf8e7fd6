//! A cluster's life against the real Postgres of this machine.

use chiptide_postgres::{Cluster, Options, Throwaway, throwaway};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory that the account Postgres runs as can reach.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("mode");
    dir
}

fn options(data_dir: impl AsRef<Path>) -> Options {
    Options { data_dir: data_dir.as_ref().to_owned(), bin_dir: None, durable: true, settings: Vec::new() }
}

fn run(psql: &mut Command, sql: &str) -> String {
    let output = psql.args(["-tAc", sql]).output().expect("psql runs");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn ask(cluster: &Cluster, sql: &str) -> String {
    run(&mut cluster.address().psql("chiptide"), sql)
}

fn wait_for_end(cluster: &mut Cluster) {
    let until = Instant::now() + Duration::from_secs(20);
    while cluster.try_wait().expect("asked").is_none() {
        assert!(Instant::now() < until, "it should have ended");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn data_outlives_a_stop_and_a_kill() {
    let dir = open_dir();
    let home = dir.path().join("missing/parents/postgres");
    let cluster = Cluster::start(&options(&home)).expect("a first start");
    cluster.ensure_database("chiptide").expect("made");
    cluster.ensure_database("chiptide").expect("already there");
    assert!(cluster.ensure_database("Robert'); drop").is_err(), "not a plain name");
    assert_eq!(ask(&cluster, "create table t (n int); insert into t values (1); select count(*) from t"), "1");
    assert_eq!(ask(&cluster, "show listen_addresses"), "");
    assert_eq!(ask(&cluster, "select datcollate from pg_database where datname = 'chiptide'"), "C");
    let url = cluster.url("chiptide");
    cluster.stop().expect("an orderly stop");
    assert!(!home.join("pgdata/postmaster.pid").exists(), "an orderly stop leaves no lock file");

    let mut cluster = Cluster::start(&options(&home)).expect("a second start");
    assert_eq!(cluster.url("chiptide"), url);
    assert_eq!(ask(&cluster, "insert into t values (2); select count(*) from t"), "2");
    let pid = Pid::from_raw(i32::try_from(cluster.pid()).expect("a pid"));
    kill(pid, Signal::SIGKILL).expect("killed");
    wait_for_end(&mut cluster);

    let cluster = Cluster::start(&options(&home)).expect("a start after a crash");
    assert_eq!(ask(&cluster, "select count(*) from t"), "2");
    let url = Command::new("psql").args([&cluster.url("chiptide"), "-tAc", "select 7"]).output().expect("psql");
    assert_eq!(String::from_utf8_lossy(&url.stdout).trim(), "7", "libpq reads the URL");
    let log = fs::read_to_string(home.join("postgres.log")).expect("a log");
    assert!(log.matches("database system is ready").count() >= 3, "every start appends to the log:\n{log}");
}

#[test]
fn a_second_start_on_the_same_data_adopts_and_leaves_it_running() {
    let dir = open_dir();
    let mut keeper = Cluster::start(&options(dir.path().join("pg"))).expect("started");
    keeper.ensure_database("chiptide").expect("made");
    let mut guest = Cluster::start(&options(dir.path().join("pg"))).expect("adopted");
    assert!(guest.is_adopted() && !keeper.is_adopted());
    assert_eq!((guest.pid(), guest.url("chiptide")), (keeper.pid(), keeper.url("chiptide")));
    assert_eq!(ask(&guest, "select 1"), "1");
    assert_eq!(guest.try_wait().expect("asked"), None);
    guest.stop().expect("let go");
    assert_eq!(keeper.try_wait().expect("asked"), None, "still the keeper's");
    let mut guest = Cluster::start(&options(dir.path().join("pg"))).expect("adopted again");
    keeper.stop().expect("stopped");
    wait_for_end(&mut guest);
}

/// Run by the next test in a process of its own.
#[test]
#[ignore = "a part of `a_server_stops_when_its_process_dies`"]
fn start_and_die() {
    let home = std::env::var_os("CHIPTIDE_TEST_HOME").expect("set by the next test");
    let cluster = Cluster::start(&options(home)).expect("started");
    assert!(cluster.pid() > 0);
    std::process::abort();
}

#[test]
fn a_server_stops_when_its_process_dies() {
    let dir = open_dir();
    let home = dir.path().join("pg");
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this);
    child.args(["--exact", "start_and_die", "--ignored"]).env("CHIPTIDE_TEST_HOME", &home);
    assert!(!child.output().expect("it runs").status.success(), "it aborts");
    // A start right away meets the old server on its way out, waits, and gets one of its own.
    let cluster = Cluster::start(&options(&home)).expect("started");
    assert!(!cluster.is_adopted());
    let log = fs::read_to_string(home.join("postgres.log")).expect("a log");
    assert!(log.contains("received fast shutdown request"), "{log}");
}

#[test]
fn a_long_path_works_and_dropping_stops() {
    let dir = open_dir();
    let home = dir.path().join("a".repeat(100)).join("with space, and comma");
    let cluster = Cluster::start(&options(&home)).expect("started");
    cluster.ensure_database("chiptide").expect("made");
    assert_eq!(ask(&cluster, "select 1"), "1");
    let socket_dir = cluster.address().socket_dir().to_owned();
    drop(cluster);
    assert!(!home.join("pgdata/postmaster.pid").exists(), "dropping it is an orderly stop");
    fs::remove_dir_all(socket_dir).expect("the short directory lies elsewhere");
}

#[test]
fn refusals_say_what_to_do() {
    let dir = open_dir();
    let home = dir.path().join("pg");
    let refusal = |options: &Options| format!("{:#}", Cluster::start(options).expect_err("refused"));

    Cluster::start(&options(&home)).expect("started").stop().expect("stopped");
    let setting = ("shared_buffers".to_owned(), "nonsense".to_owned());
    let error = refusal(&Options { settings: vec![setting], ..options(&home) });
    assert!(error.contains("shared_buffers") && error.contains("postgres.log"), "the log's tail: {error}");

    fs::write(home.join("pgdata/PG_VERSION"), "9\n").expect("written");
    let error = refusal(&options(&home));
    assert!(error.contains("made by Postgres 9") && error.contains("pg_dumpall"), "{error}");

    let error = refusal(&Options { bin_dir: Some("/nonexistent".into()), ..options(dir.path().join("other")) });
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn a_place_that_the_database_cannot_reach_is_named_before_anything_is_made() {
    if !nix::unistd::Uid::effective().is_root() {
        return; // Nobody else changes accounts.
    }
    let closed = tempfile::tempdir().expect("a directory");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("closed");
    let error = Cluster::start(&options(closed.path().join("a/b"))).expect_err("refused").to_string();
    assert!(error.contains(&format!("chmod a+x {}", closed.path().display())), "{error}");
    assert!(!closed.path().join("a").exists());
}

#[test]
fn an_unfinished_initdb_is_started_over() {
    let dir = open_dir();
    fs::create_dir_all(dir.path().join("pg/pgdata.new")).expect("made");
    fs::write(dir.path().join("pg/pgdata.new/PG_VERSION"), "15\n").expect("written");
    fs::set_permissions(dir.path().join("pg"), fs::Permissions::from_mode(0o711)).expect("mode");
    let cluster = Cluster::start(&options(dir.path().join("pg"))).expect("started");
    cluster.stop().expect("stopped");
}

#[test]
fn the_shared_throwaway_outlives_the_thread_that_asked_first() {
    thread::spawn(|| throwaway().ensure_database("first").expect("made")).join().expect("joined");
    sleep(Duration::from_millis(300));
    throwaway().ensure_database("second").expect("made");
    assert_eq!(run(&mut throwaway().psql("first"), "show fsync"), "off");
    assert!(throwaway().url("second").starts_with("postgres:///second?host=/"));
}

#[test]
fn a_throwaway_leaves_nothing_behind() {
    let cluster = Throwaway::start().expect("started");
    let home = cluster.address().socket_dir().parent().expect("its home").to_owned();
    assert!(home.exists());
    drop(cluster);
    assert!(!home.exists());
}

/// A primary, a replica of it that follows, and the folder of both.
fn pair() -> (TempDir, Cluster, Cluster) {
    let dir = open_dir();
    let first = Cluster::start(&options(dir.path().join("first"))).expect("a primary");
    first.ensure_database("chiptide").expect("made");
    ask(&first, "create table t (n int)");
    chiptide_postgres::copy(first.address(), &dir.path().join("second")).expect("copied");
    let second = Cluster::start(&options(dir.path().join("second"))).expect("a replica");
    wait_until(|| first.followers("async").expect("asked") == 1);
    (dir, first, second)
}

fn wait_until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "it should have come to that");
        sleep(Duration::from_millis(10));
    }
}

fn kill_hard(cluster: &mut Cluster) {
    kill(Pid::from_raw(i32::try_from(cluster.pid()).expect("a pid")), Signal::SIGKILL).expect("killed");
    wait_for_end(cluster);
}

#[test]
fn a_synchronous_replica_has_all_that_was_committed() {
    let (_dir, mut first, second) = pair();
    first.set_synchronous(true).expect("set");
    wait_until(|| first.followers("sync").expect("asked") == 1);
    ask(&first, "insert into t values (1)");
    kill_hard(&mut first);
    second.promote().expect("promoted");
    assert_eq!(ask(&second, "insert into t values (2); select count(*) from t"), "2");
}

#[test]
fn a_replica_that_no_longer_follows_lacks_the_tail() {
    let (_dir, mut first, second) = pair();
    second.stop_following().expect("told");
    wait_until(|| !second.is_following().expect("asked"));
    ask(&first, "insert into t values (1)");
    kill_hard(&mut first);
    second.promote().expect("promoted");
    assert_eq!(ask(&second, "select count(*) from t"), "0");
}
