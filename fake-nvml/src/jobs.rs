//! Processes that come and go: one file in `procs/` for each, dropped by whatever stands for a GPU job. A file counts while
//! the process with that pid *and start time* lives, so a reused pid never revives it.

use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// One file of `procs/`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The chip: its position in the scenario or its uuid.
    pub chip: ChipRef,
    /// Memory it holds there, MiB.
    pub mib: u64,
    /// Its pid.
    pub pid: u32,
    /// Its start time: field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// How long it is still listed after its death, as one that is stuck in the driver is.
    #[serde(default)]
    pub stays_ms: u64,
    /// The lease it works under, for people who look at the directory.
    #[serde(default)]
    pub lease: Option<String>,
}

/// How a job names its chip.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum ChipRef {
    /// By position in the scenario.
    Position(usize),
    /// By uuid.
    Uuid(String),
}

/// What is left of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It runs: listed, and its memory in use.
    Alive,
    /// It has been dead for this long.
    Dead(Duration),
}

/// How long a dead job's files stay, so that the folder does not grow for ever. No memory lingers longer.
const FORGET: Duration = Duration::from_secs(600);

type Version = (u64, i64, i64, u64);

/// A folder that has changed so lately may change again without looking changed: file times are as coarse as a clock tick.
const SETTLED: Duration = Duration::from_millis(50);

/// The files as last read. A driver is asked dozens of times for one reading of a chip, so nothing is looked at twice that
/// cannot have changed: the folder's list while the folder is as it was, and jobs that have died.
#[derive(Debug, Default)]
pub struct Jobs {
    folder: Option<Version>,
    known: HashMap<PathBuf, Known>,
}

/// One file.
#[derive(Debug, Default)]
struct Known {
    version: Option<Version>,
    job: Option<Job>,
    died: Option<SystemTime>,
}

impl Jobs {
    /// Every job in `folder` with what is left of it. Files that are no jobs (yet) are passed over. The moment of a death is
    /// kept beside the job's file, so that all who look agree on it.
    pub fn read(&mut self, folder: &Path) -> Vec<(Job, Life)> {
        self.list(folder);
        let mut jobs = Vec::with_capacity(self.known.len());
        self.known.retain(|path, known| match known.look(path) {
            Some((job, Life::Dead(since))) if since > FORGET => {
                // Whoever looks at the same time does the same.
                let _ = fs::remove_file(path);
                let _ = fs::remove_file(path.with_extension("dead"));
                jobs.push((job, Life::Dead(since)));
                false
            }
            found => {
                jobs.extend(found);
                true
            }
        });
        jobs
    }

    fn list(&mut self, folder: &Path) {
        let now = version(folder);
        if now.is_some() && now == self.folder {
            return;
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let files: HashSet<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        self.known.retain(|path, _| files.contains(path));
        for file in files {
            // What died under this name may have been replaced by something that lives.
            self.known.entry(file).or_default().died = None;
        }
        let age = fs::metadata(folder).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        self.folder = now.filter(|_| age.is_some_and(|age| age > SETTLED));
    }
}

impl Known {
    fn look(&mut self, path: &Path) -> Option<(Job, Life)> {
        if let (Some(job), Some(died)) = (&self.job, self.died) {
            return Some((job.clone(), Life::Dead(since(died))));
        }
        let version = version(path)?;
        if self.version != Some(version) {
            self.job = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            self.version = Some(version);
        }
        let job = self.job.clone()?;
        if is_alive(job.pid, job.start_time) {
            return Some((job, Life::Alive));
        }
        let died = death_of(path);
        self.died = died.is_kept.then_some(died.at);
        Some((job, Life::Dead(since(died.at))))
    }
}

fn since(moment: SystemTime) -> Duration {
    SystemTime::now().duration_since(moment).unwrap_or_default()
}

/// When a file counts as changed. Time and length alone would miss an edit of the same size within one clock tick.
pub fn version(path: &Path) -> Option<Version> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// Whether the process of that pid is the one started then, and not a zombie (those hold no chip any more).
fn is_alive(pid: u32, start_time: u64) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name, in parentheses, may hold anything; the fields after it are plain.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    !matches!(state, None | Some("Z" | "X")) && started == Some(start_time)
}

/// When a job died.
struct Death {
    at: SystemTime,
    /// Whether others will say the same.
    is_kept: bool,
}

/// When the job of this file died: the age of a marker that the first to notice leaves behind.
fn death_of(path: &Path) -> Death {
    let marker = path.with_extension("dead");
    let kept = || fs::metadata(&marker).and_then(|meta| meta.modified()).ok();
    let at = kept().or_else(|| {
        // In a folder that cannot be written nobody remembers: such a death is always just now.
        let _ = fs::File::options().write(true).create_new(true).open(&marker);
        kept()
    });
    Death { at: at.unwrap_or_else(SystemTime::now), is_kept: at.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_time(pid: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        fields.split_ascii_whitespace().nth(19).expect("22 fields").parse().expect("a number")
    }

    #[test]
    fn a_job_lives_with_its_process_and_not_with_its_pid() {
        let folder = std::env::temp_dir().join(format!("fake-nvml-jobs-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let (pid, started) = (child.id(), start_time(child.id()));
        let write = |name: &str, started: u64| {
            let text = format!(r#"{{"chip": 0, "mib": 10, "pid": {pid}, "start_time": {started}}}"#);
            fs::write(folder.join(name), text).expect("written");
        };
        write("own.json", started);
        write("reused.json", started + 1);
        fs::write(folder.join("torn.json"), "{\"chip\"").expect("written");
        let mut jobs = Jobs::default();
        let lives = |jobs: &mut Jobs| -> HashMap<u64, bool> {
            jobs.read(&folder).into_iter().map(|(job, life)| (job.start_time, life == Life::Alive)).collect()
        };
        assert_eq!(lives(&mut jobs), HashMap::from([(started, true), (started + 1, false)]));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(lives(&mut jobs), HashMap::from([(started, false), (started + 1, false)]));
        fs::remove_dir_all(&folder).expect("removed");
    }
}
