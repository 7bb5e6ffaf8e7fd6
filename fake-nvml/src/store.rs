//! What is current of the scenario directory. Looked at on every call; read again only when it has changed; a scenario that
//! is torn or invalid leaves the last good one in force.

use crate::jobs::{ChipRef, Jobs, Life, version};
use crate::scenario::{Chip, Listed, Scenario};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The directory and what was last read of it.
#[derive(Debug)]
struct Store {
    directory: PathBuf,
    /// The scenario and the folder of jobs in it.
    file: PathBuf,
    procs: PathBuf,
    seen: Option<(u64, i64, i64, u64)>,
    scenario: Option<Arc<Scenario>>,
    jobs: Jobs,
}

static STORE: Mutex<Option<Store>> = Mutex::new(None);

/// Points the library at the directory named in the environment. Answers whether there is one.
pub fn open() -> bool {
    let Some(directory) = std::env::var_os(crate::DIRECTORY) else { return false };
    let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = PathBuf::from(directory);
    if store.as_ref().is_none_or(|store| store.directory != directory) {
        let (file, procs) = (directory.join("scenario.json"), directory.join("procs"));
        *store = Some(Store { directory, file, procs, seen: None, scenario: None, jobs: Jobs::default() });
    }
    true
}

/// The scenario in force; `None` before [`open`] and while no valid one was ever there.
pub fn scenario() -> Option<Arc<Scenario>> {
    STORE.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.current()
}

impl Store {
    fn current(&mut self) -> Option<Arc<Scenario>> {
        let file = &self.file;
        let now = version(file);
        if now.is_some() && now != self.seen {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            match Scenario::parse(&text) {
                Ok(scenario) => self.scenario = Some(Arc::new(scenario)),
                Err(error) => eprintln!("fake-nvml: {} keeps its last good state: {error}", file.display()),
            }
            self.seen = now;
        }
        self.scenario.clone()
    }
}

/// What jobs and the scenario put on one chip now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Processes the driver lists.
    pub listed: Vec<Listed>,
    /// Memory of the listed ones and of those that died a moment ago, MiB.
    pub mib: u64,
}

/// The load of the chip at `position`.
pub fn load(position: usize, chip: &Chip) -> Load {
    let jobs = {
        let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        store.as_mut().map(|store| store.jobs.read(&store.procs)).unwrap_or_default()
    };
    let mib = chip.processes.iter().filter_map(|process| process.mib).sum();
    let mut load = Load { listed: chip.processes.clone(), mib };
    for (job, life) in jobs {
        let here = match &job.chip {
            ChipRef::Position(at) => *at == position,
            ChipRef::Uuid(uuid) => *uuid == chip.uuid,
        };
        match life {
            _ if !here => {}
            Life::Dead(since) if since >= Duration::from_millis(job.stays_ms.max(chip.linger_ms)) => {}
            Life::Dead(since) if since >= Duration::from_millis(job.stays_ms) => load.mib += job.mib,
            Life::Alive | Life::Dead(_) => {
                load.listed.push(Listed { pid: job.pid, mib: Some(job.mib), graphics: false });
                load.mib += job.mib;
            }
        }
    }
    load
}
