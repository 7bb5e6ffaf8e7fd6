//! One look at one chip: who it is, how it is, what it measures, what runs on it.

use super::facts::{Facts, is_absent};
use super::processes::{self, Owners};
use crate::faults::{Signs, recovery_text};
use chiptide_api::chip::{ChipProcess, Reading};
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

const MIB: u64 = 1024 * 1024;
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

/// Looks at the chip at an index of the driver's list. `known` are the facts of the chip met there before: indexes move
/// when a chip vanishes, so the uuid is read each time and the rest only when it is another chip.
pub(crate) fn look(nvml: &Nvml, index: u32, known: &mut Option<Facts>) -> Result<Sample, Fault> {
    let device = nvml.device_by_index(index).map_err(|error| Fault::of("handle", &error))?;
    let uuid = device.uuid().map_err(|error| Fault::of("uuid", &error))?;
    let facts = match known.take().filter(|facts| facts.chip.id == uuid) {
        Some(facts) => facts,
        None => Facts::read(&device, &uuid)?,
    };
    *known = Some(facts.clone());
    let (listed, owners) = processes::read(&device, facts.chip.memory_mib)?;
    let signs = signs(&device)?;
    Ok(Sample { ailment: ailment(signs), signs, reading: measure(&device, listed)?, owners, facts })
}

fn measure(device: &Device<'_>, processes: Vec<ChipProcess>) -> Result<Reading, Fault> {
    Ok(Reading {
        utilization: measured(device.utilization_rates())?.map(|used| used.gpu.min(100) as f32 / 100.0),
        memory_used_mib: measured(device.memory_info())?.map(|memory| memory.used / MIB),
        power_watts: measured(device.power_usage())?.map(|milliwatts| milliwatts as f32 / 1000.0),
        temperature_celsius: measured(device.temperature(TemperatureSensor::Gpu))?.map(|celsius| celsius as f32),
        clock_mhz: measured(device.clock_info(Clock::SM))?,
        memory_clock_mhz: measured(device.clock_info(Clock::Memory))?,
        ecc_corrected: measured(device.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile))?,
        ecc_uncorrected: measured(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile))?,
        processes: Some(processes),
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
