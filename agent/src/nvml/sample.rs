//! One look at one chip: who it is, how it is, what it measures, what runs on it.

use super::facts::{Facts, is_absent};
use super::processes::{self, Owners};
use crate::faults::{Signs, recovery_text};
use chiptide_api::chip::Reading;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
/// For how long what a chip measures is not asked again, unless it is another chip: less than the shortest rhythm of samples
/// that people look at.
const MEASURED_FOR: Duration = Duration::from_millis(900);
/// `NVML_FI_DEV_REMAPPED_PENDING`, `NVML_FI_DEV_REMAPPED_FAILURE` and `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const HEALTH_FIELDS: [FieldId; 3] = [FieldId(144), FieldId(145), FieldId(230)];

/// Why a look at a chip came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The driver says the chip is broken.
    Unhealthy(String),
    /// The driver does not reach the chip any more.
    Lost,
    /// The driver does not say how the chip is.
    Unreadable(String),
}

impl Fault {
    /// The fault an error stands for, met while reading `what`.
    pub(crate) fn of(what: &str, error: &NvmlError) -> Fault {
        match error {
            NvmlError::GpuLost => Fault::Lost,
            NvmlError::ResetRequired => Fault::Unhealthy("the chip must be reset before it can be used".to_owned()),
            error => Fault::Unreadable(format!("{what}: {error}")),
        }
    }
}

/// A chip as one look saw it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sample {
    /// What it is.
    pub(crate) facts: Facts,
    /// What is wrong with it, if the driver knows of something.
    pub(crate) ailment: Option<String>,
    /// What the driver holds against it.
    pub(crate) signs: Signs,
    /// What it measures.
    pub(crate) reading: Reading,
    /// Whose its processes are.
    pub(crate) owners: Owners,
}

/// Looks at the chip at an index of the driver's list. `known` is what was learned of the chip met there before: indexes
/// move when a chip vanishes, so the uuid is read each time and the rest only when it is another chip. Processes, memory and
/// what the driver holds against the chip are asked each time; what it measures, no more often than people can see.
pub(crate) fn look(nvml: &Nvml, index: u32, known: &mut Option<Known>) -> Result<Sample, Fault> {
    let device = nvml.device_by_index(index).map_err(|error| Fault::of("handle", &error))?;
    let uuid = device.uuid().map_err(|error| Fault::of("uuid", &error))?;
    let known = match known.take() {
        Some(same) if same.facts.chip.id == uuid => known.insert(same),
        _ => known.insert(Known { facts: Facts::read(&device, &uuid)?, measured: None }),
    };
    let (listed, owners) = processes::read(&device, known.facts.chip.memory_mib)?;
    let signs = signs(&device)?;
    let memory_used_mib = measured(device.memory_info())?.map(|memory| memory.used / MIB);
    let reading = Reading { memory_used_mib, processes: Some(listed), ..known.measure(&device)? };
    Ok(Sample { ailment: ailment(signs), signs, reading, owners, facts: known.facts.clone() })
}

/// What is kept of a chip from one look to the next.
#[derive(Debug)]
pub(crate) struct Known {
    facts: Facts,
    measured: Option<(Instant, Reading)>,
}

impl Known {
    /// What the chip measures, now or a moment ago: in a hurry it is looked at fifty times a second.
    fn measure(&mut self, device: &Device<'_>) -> Result<Reading, Fault> {
        match &self.measured {
            Some((at, reading)) if at.elapsed() < MEASURED_FOR => Ok(reading.clone()),
            _ => {
                let reading = measure(device)?;
                self.measured = Some((Instant::now(), reading.clone()));
                Ok(reading)
            }
        }
    }
}

fn measure(device: &Device<'_>) -> Result<Reading, Fault> {
    Ok(Reading {
        utilization: measured(device.utilization_rates())?.map(|used| used.gpu.min(100) as f32 / 100.0),
        power_watts: measured(device.power_usage())?.map(|milliwatts| milliwatts as f32 / 1000.0),
        temperature_celsius: measured(device.temperature(TemperatureSensor::Gpu))?.map(|celsius| celsius as f32),
        clock_mhz: measured(device.clock_info(Clock::SM))?,
        memory_clock_mhz: measured(device.clock_info(Clock::Memory))?,
        ecc_corrected: measured(device.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile))?,
        ecc_uncorrected: measured(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile))?,
        ..Reading::default()
    })
}

/// A measured value; absent when it cannot be had. Only a broken chip makes the whole look worthless.
fn measured<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) => match Fault::of("", &error) {
            Fault::Unreadable(_) => Ok(None),
            broken => Err(broken),
        },
    }
}

/// What the driver itself holds against the chip: rows to be remapped, or a recovery it asks for.
fn signs(device: &Device<'_>) -> Result<Signs, Fault> {
    let answers = match device.field_values_for(&HEALTH_FIELDS) {
        Ok(answers) => answers,
        Err(error) if is_absent(&error) => return Ok(Signs::default()),
        Err(error) => return Err(Fault::of("health", &error)),
    };
    // Matched by position: newer drivers answer under other ids than those asked for.
    let value = |position: usize| match answers.get(position)?.as_ref().ok()?.value.as_ref().ok()? {
        SampleValue::U32(value) => Some(u64::from(*value)),
        SampleValue::U64(value) => Some(*value),
        _ => None,
    };
    let is_set = |position: usize| value(position).is_some_and(|value| value > 0);
    let recovery = value(2).map(|action| u32::try_from(action).unwrap_or(u32::MAX));
    Ok(Signs { remap_pending: is_set(0), remap_failed: is_set(1), recovery, lost: false })
}

/// What makes a chip that answers unfit all the same.
fn ailment(signs: Signs) -> Option<String> {
    match signs {
        Signs { remap_failed: true, .. } => Some("row remapping has failed: memory is worn out".to_owned()),
        Signs { recovery: Some(action @ 1..), .. } => {
            Some(format!("the driver asks for a recovery: {}", recovery_text(action)))
        }
        _ => None,
    }
}
