//! Which device nodes a workload may open: not those of chips that are not its own. A cgroup of version 2 has no file for
//! that; the kernel asks a small program at every open of a device node (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15), which
//! stays with the cgroup until the cgroup is removed, whatever becomes of the agent. The program forbids and never allows:
//! what the machine itself forbids stays forbidden, and what no chip is (the driver's control nodes) stays open.

use super::cgroup::Cgroup;
use crate::holders::DeviceNodes;
use anyhow::{Context, bail};
use nix::libc;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// A chip as a workload's surroundings are made for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fitted {
    /// Its vendor, lower case.
    pub vendor: String,
    /// Its place on the PCI bus, where it says.
    pub bus_id: Option<String>,
}

/// How workloads are kept from the chips of others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceLimits {
    /// Where chips' device nodes are found.
    pub nodes: DeviceNodes,
    /// Whether a workload is refused where the node of another chip is not known.
    pub required: bool,
}

/// A device node by its numbers, major and minor.
pub(crate) type Numbers = (u32, u32);

impl DeviceLimits {
    /// Keeps what runs in a cgroup from every chip of the node but `own`.
    pub(crate) fn put_on(
        &self,
        cgroup: &Cgroup,
        own: &[String],
        chips: &BTreeMap<String, Fitted>,
    ) -> anyhow::Result<()> {
        let forbidden = self.of_others(own, chips)?;
        if forbidden.is_empty() {
            return Ok(());
        }
        forbid(cgroup, &forbidden).context("keep it from the chips of others")
    }

    fn of_others(&self, own: &[String], chips: &BTreeMap<String, Fitted>) -> anyhow::Result<Vec<Numbers>> {
        let mut forbidden = Vec::new();
        for (id, chip) in chips.iter().filter(|(id, _)| !own.contains(id)) {
            match self.nodes.node_of(&chip.vendor, chip.bus_id.as_deref()) {
                Some(node) => forbidden.push(node.numbers()),
                None if self.required => bail!("device_limits: the device node of {id}, another's chip, is not known"),
                None => {}
            }
        }
        Ok(forbidden)
    }
}

/// Whether this process may put such programs on cgroups here: the kernel's own answer to one that forbids nothing.
pub fn can_limit() -> io::Result<()> {
    load(&program(&[])).map(drop)
}

fn forbid(cgroup: &Cgroup, forbidden: &[Numbers]) -> io::Result<()> {
    let (folder, program) = (File::open(cgroup.path())?, load(&program(forbidden))?);
    attach(&folder, &program)
}

/// One instruction of the kernel's machine (`struct bpf_insn` in `linux/bpf.h`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: u32,
}

/// The program: register 1 points to `struct bpf_cgroup_dev_ctx` (access and type, major, minor); what is left in register
/// 0 is the answer, 0 for no.
fn program(forbidden: &[Numbers]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const AND: u8 = 0x57;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const JUMP_UNLESS_EQUAL: u8 = 0x55;
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    const CHARACTER_DEVICE: u32 = 2;
    let step =
        |code, to: u8, from: u8, offset, immediate| Instruction { code, registers: from << 4 | to, offset, immediate };
    let answer = |yes| [step(SET, 0, 0, 0, yes), step(EXIT, 0, 0, 0, 0)];
    let mut steps = vec![
        step(LOAD_WORD, 2, 1, 0, 0),
        step(LOAD_WORD, 3, 1, 4, 0),
        step(LOAD_WORD, 4, 1, 8, 0),
        step(AND, 2, 0, 0, 0xffff),
        step(JUMP_IF_EQUAL, 2, 0, 2, CHARACTER_DEVICE),
    ];
    steps.extend(answer(1));
    for (major, minor) in forbidden {
        steps.push(step(JUMP_UNLESS_EQUAL, 3, 0, 3, *major));
        steps.push(step(JUMP_UNLESS_EQUAL, 4, 0, 2, *minor));
        steps.extend(answer(0));
    }
    steps.extend(answer(1));
    steps
}

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as it is used.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_ATTACH`, as far as it is used.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let license = c"MIT";
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let descriptor = bpf(BPF_PROG_LOAD, &attributes)?;
    let descriptor = i32::try_from(descriptor).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attach(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    /// Beside whatever is on it already; each of them can forbid.
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn bpf<A>(command: libc::c_int, attributes: &A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `attributes`, which lives and has the size said, and what it points to (instructions and
    // licence, both owned by our callers for the length of this call); it writes to neither.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A cgroup of this test's own, where the machine lets us have one.
    fn cgroup() -> Option<Cgroup> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (left, _) = mounts.lines().find_map(|line| line.split_once(" - cgroup2 "))?;
        let cgroup = Cgroup::at(format!("{}/chiptide-devices-{}", left.split(' ').nth(4)?, std::process::id()).into());
        cgroup.make().ok().map(|()| cgroup)
    }

    #[test]
    fn what_runs_in_the_cgroup_opens_its_own_devices_and_no_others() {
        let cgroup = match (can_limit(), cgroup()) {
            (Ok(()), Some(cgroup)) => cgroup,
            (limits, cgroup) => {
                eprintln!("skipped: programs on cgroups: {limits:?}, a cgroup: {cgroup:?}");
                return;
            }
        };
        // Two devices every machine has stand for the nodes of two chips.
        let (zero, full) = ((1, 5), (1, 7));
        forbid(&cgroup, &[(195, 0), full]).expect("forbidden");
        let inside = |path: &str| {
            let enter = format!("echo 0 > {}/cgroup.procs && exec head -c 1 {path}", cgroup.path().display());
            Command::new("sh").args(["-c", &enter]).output().expect("a process").status.success()
        };
        let seen = (inside("/dev/zero"), inside("/dev/full"));
        forbid(&cgroup, &[zero]).expect("a second one");
        let after = inside("/dev/zero");
        cgroup.remove().expect("removed");
        assert_eq!((seen, after), ((true, false), false));
    }

    #[test]
    fn a_chip_whose_node_is_not_known_is_passed_over_unless_limits_are_required() {
        let nodes = DeviceNodes { driver: "/nowhere".into(), dev: "/nowhere".into() };
        let fitted = || Fitted { vendor: "nvidia".to_owned(), bus_id: Some("00000000:60:00.0".to_owned()) };
        let chips = BTreeMap::from([("own".to_owned(), fitted()), ("other".to_owned(), fitted())]);
        let limits = |required| DeviceLimits { nodes: nodes.clone(), required };
        let own = ["own".to_owned()];
        assert_eq!(limits(false).of_others(&own, &chips).expect("passed over"), []);
        assert!(limits(true).of_others(&own, &chips).expect_err("refused").to_string().contains("other"));
    }
}
