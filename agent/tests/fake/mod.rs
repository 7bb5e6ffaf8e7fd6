//! The agent's binary on fake chips: a scenario directory that the test edits, and the readings that come out.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything a test waits for may take: a bound on failure, never a pause.
const BOUND: Duration = Duration::from_secs(60);

/// The fake driver's library, built once into the target directory this test runs from.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // target/<profile>/deps/<this test>
        let profile = std::env::current_exe().expect("this test").ancestors().nth(2).expect("a folder").to_owned();
        let name = match profile.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => "dev",
            Some(name) => name,
        };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "fake-nvml", "--profile", name, "--target-dir"]);
        build.arg(profile.parent().expect("the target directory")).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().expect("cargo runs").success(), "fake-nvml does not build");
        profile.join("libnvidia_ml.so")
    })
}

/// The agent's binary, without whatever the environment says of agents.
pub(crate) fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chiptide-agent"));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("CHIPTIDE_"));
    for name in ours {
        command.env_remove(name);
    }
    command
}

/// A scenario directory.
pub(crate) struct Scenario {
    folder: TempDir,
}

impl Scenario {
    pub(crate) fn new(scenario: Value) -> Scenario {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("procs")).expect("procs");
        let written = Scenario { folder };
        written.set(scenario);
        written
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the scenario as one should: by rename.
    pub(crate) fn set(&self, scenario: Value) {
        let next = self.path().join("next");
        fs::write(&next, scenario.to_string()).expect("written");
        fs::rename(next, self.path().join("scenario.json")).expect("renamed");
    }

    /// Replaces the scenario as one should not.
    pub(crate) fn tear(&self, text: &str) {
        fs::write(self.path().join("scenario.json"), text).expect("written");
    }

    /// The process works on a chip.
    pub(crate) fn work(&self, pid: u32, chip: usize, mib: u64) {
        let job = json!({"chip": chip, "mib": mib, "pid": pid, "start_time": start_time(pid)});
        let (next, file) = (self.path().join("next"), format!("procs/{pid}-{chip}.json"));
        fs::write(&next, job.to_string()).expect("written");
        fs::rename(next, self.path().join(file)).expect("renamed");
    }
}

fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields.split_ascii_whitespace().nth(19).expect("22 fields").parse().expect("a number")
}

/// An agent that prints every reading of a scenario's chips.
pub(crate) struct Watcher {
    agent: Child,
    readings: Receiver<Value>,
    said: Receiver<String>,
}

impl Watcher {
    pub(crate) fn start(scenario: &Scenario) -> Watcher {
        let mut command = agent();
        command.args(["--watch", "--sample-every", "50ms", "--read-deadline", "400ms"]);
        command.arg("--nvml-library").arg(library()).env("CHIPTIDE_FAKE_NVML", scenario.path());
        let mut agent = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the agent starts");
        let (out, err) = (agent.stdout.take().expect("piped"), agent.stderr.take().expect("piped"));
        let (reading, readings) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.for_each(|line| drop(reading.send(serde_json::from_str(&line).expect("JSON"))));
        });
        let (saying, said) = channel();
        thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).for_each(|line| drop(saying.send(line)))
        });
        Watcher { agent, readings, said }
    }

    /// Waits for a reading that `wanted` accepts; answers its chips.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let (deadline, mut last) = (Instant::now() + BOUND, Value::Null);
        while let Ok(reading) = self.readings.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            last = reading;
            let chips = last["chips"].as_array().expect("chips");
            if wanted(chips) {
                return chips.clone();
            }
        }
        panic!("{what} never came; the last reading was {last:#}");
    }

    /// Waits until the process has said this on stderr.
    pub(crate) fn until_said(&self, what: &str) {
        let deadline = Instant::now() + BOUND;
        while !self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("said").contains(what)
        {
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// A chip's health: its state, and what is wrong.
pub(crate) fn health(chip: &Value) -> (&str, &str) {
    let text = |key| chip["health"][key].as_str().unwrap_or_default();
    (text("state"), text("detail"))
}

/// Whether all chips but this one are healthy and read.
pub(crate) fn others_fine(chips: &[Value], but: usize) -> bool {
    let fine = |chip: &Value| health(chip).0 == "healthy" && chip["reading"]["processes"].is_array();
    chips.len() == 8 && chips.iter().enumerate().all(|(index, chip)| index == but || fine(chip))
}
