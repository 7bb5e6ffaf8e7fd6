//! The Python package's own tests, against a real daemon.

use crate::common::{Daemon, Node};
use std::process::Command;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_works_with_this_daemon() {
    let version = Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).status();
    if !version.is_ok_and(|status| status.success()) {
        let excuse = "python3 3.9 or newer is not here: the Python package was NOT tested (deploy/install-missing.sh installs it)";
        assert!(std::env::var_os("CI").is_none(), "{excuse}");
        eprintln!("{excuse}");
        return;
    }
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let agent = tokio::spawn(async move {
        loop {
            node.obey().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let (url, token) = (daemon.base.clone(), daemon.token.clone());
    let ran = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .args(["-B", "-m", "unittest", "discover", "--start-directory", "tests"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/python"))
            .env("PYTHONPATH", ".")
            .env("CHIPTIDE_URL", url)
            .env("CHIPTIDE_TOKEN", token)
            .output()
    });
    let ran = ran.await.expect("no panic").expect("python3 runs");
    agent.abort();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    daemon.stop().await;
}
