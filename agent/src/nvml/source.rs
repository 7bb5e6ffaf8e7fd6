//! The source's rounds: ask every reader, wait until the deadline, publish what came.

use super::inventory::{Inventory, Look};
use super::sample::look;
use super::worker::Worker;
use crate::pace::Pace;
use crate::reading::NodeReading;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{io, thread};
use tokio::sync::watch;
use tracing::warn;

/// What the loader looks for when no library is configured.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// How to read chips.
#[derive(Clone, Debug)]
pub struct NvmlOptions {
    /// The library; the driver's own, found by name, when absent.
    pub library: Option<PathBuf>,
    /// When to sample.
    pub pace: Pace,
    /// How long a reader may take before its chip counts as unreadable.
    pub deadline: Duration,
}

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The library is not there or does not start.
    #[error("no NVIDIA driver: tried {library}: {source}")]
    NoDriver {
        /// What was tried.
        library: String,
        /// What went wrong.
        source: NvmlError,
    },
    /// The system refused a thread.
    #[error("start a reader thread")]
    NoThread(#[from] io::Error),
}

/// Starts reading on threads of its own. Answers the driver, and the readings, after the first round. The threads end when nobody listens any more.
pub fn start(options: NvmlOptions) -> Result<(&'static Nvml, watch::Receiver<NodeReading>), StartError> {
    let library = options.library.unwrap_or_else(|| LIBRARY.into());
    let nvml = Nvml::builder().lib_path(library.as_os_str()).init();
    let nvml = nvml.map_err(|source| StartError::NoDriver { library: library.display().to_string(), source })?;
    // For life: a reader may be stuck in a driver call whenever the process wants to end, so it must never be unloaded.
    let nvml: &'static Nvml = Box::leak(Box::new(nvml));
    let mut rounds = Rounds::new(nvml, options.deadline)?;
    let mut begun = Instant::now();
    let (readings, newest) = watch::channel(rounds.read());
    let pace = options.pace;
    thread::Builder::new().name("chips".into()).spawn(move || {
        loop {
            pace.wait(begun);
            begun = Instant::now();
            if readings.is_closed() {
                return;
            }
            readings.send_replace(rounds.read());
        }
    })?;
    Ok((nvml, newest))
}

struct Rounds {
    nvml: &'static Nvml,
    deadline: Duration,
    driver_version: Option<String>,
    counter: Worker<Result<u32, NvmlError>>,
    readers: Vec<Worker<Look>>,
    inventory: Inventory,
}

impl Rounds {
    fn new(nvml: &'static Nvml, deadline: Duration) -> io::Result<Rounds> {
        Ok(Rounds {
            nvml,
            deadline,
            driver_version: nvml.sys_driver_version().ok(),
            counter: Worker::start("chip-count".into(), move || nvml.device_count())?,
            readers: Vec::new(),
            inventory: Inventory::default(),
        })
    }

    /// One round. `taken` is when it began, so nothing in the reading is older.
    fn read(&mut self) -> NodeReading {
        let taken = tokio::time::Instant::now();
        let count = self.count();
        while self.readers.len() < count {
            match reader(self.nvml, self.readers.len()) {
                Ok(reader) => self.readers.push(reader),
                Err(error) => {
                    warn!("no thread for chip {}: {error}", self.readers.len());
                    break;
                }
            }
        }
        let by = Instant::now() + self.deadline;
        let asked: Vec<bool> = self.readers.iter_mut().take(count).map(Worker::ask).collect();
        let answer = |(reader, asked): (&mut Worker<Look>, &bool)| match asked {
            true => reader.answer_by(by).unwrap_or(Look::Late),
            false => Look::Late,
        };
        let looks = self.readers.iter_mut().zip(&asked).map(answer).collect();
        let chips = self.inventory.merge(looks);
        NodeReading { taken, driver_version: self.driver_version.clone(), chips }
    }

    /// How many chips the driver counts; as many as were met when it cannot tell.
    fn count(&mut self) -> usize {
        let by = Instant::now() + self.deadline;
        let answer = if self.counter.ask() { self.counter.answer_by(by) } else { None };
        match answer {
            Some(Ok(count)) => count as usize,
            Some(Err(_)) | None => self.inventory.indexes(),
        }
    }
}

fn reader(nvml: &'static Nvml, index: usize) -> io::Result<Worker<Look>> {
    let (mut known, number) = (None, index as u32);
    Worker::start(format!("chip-{index}"), move || Look::Answered(look(nvml, number, &mut known).map(Box::new)))
}
