//! XID lines of the kernel's log. The driver's events miss some (a chip that does not come up, a driver that is not loaded).
//! Anybody who may write to the log can forge a line, and a broken driver can write thousands a second: whatever comes is
//! cut, checked and counted, never trusted to be short, text, or true.

use super::sighting::{Place, Sighting, Which};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

/// The kernel cuts records before this; of a longer line the rest is thrown away.
const LINE_MAX: usize = 8 * 1024;
/// How much of a line is told.
const DETAIL_MAX: usize = 200;
/// So many sightings a second are taken in; the rest is counted.
const PER_SECOND_MAX: u32 = 64;
/// How often a plain file is looked at for more.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const MARK: &str = "NVRM: Xid (PCI:";

/// The XID of one line, if it has one.
pub fn parse(line: &[u8]) -> Option<Sighting> {
    let text = String::from_utf8_lossy(line.get(..line.len().min(LINE_MAX))?);
    let (_, rest) = text.split_once(MARK)?;
    let (place, rest) = rest.split_once(')')?;
    let place = parse_place(place)?;
    let rest = rest.strip_prefix(':')?.trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let xid: u32 = rest.get(..digits).filter(|digits| digits.len() <= 5)?.parse().ok()?;
    let detail = rest.get(digits..)?.trim_start_matches([',', ' ']).trim_end();
    let printable = detail.chars().take(DETAIL_MAX).map(|c| if c.is_control() { ' ' } else { c });
    Some(Sighting { which: Which::At(place), xid, wanted: recovery_in(detail), detail: printable.collect() })
}

/// `0000:17:00`, perhaps with a function.
fn parse_place(text: &str) -> Option<Place> {
    let mut parts = text.split([':', '.']);
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| !part.is_empty() && part.len() <= digits)?;
        u32::from_str_radix(part, 16).ok()
    };
    Some((number(8)?, number(2)?, number(2)?))
}

/// The recovery an XID 154 says the driver wants now: `… changed from 0x0 (None) to 0x4 (Drain and Reset)`.
fn recovery_in(detail: &str) -> Option<u32> {
    let (_, to) = detail.strip_prefix("GPU recovery action changed from ")?.split_once(" to 0x")?;
    let digits = to.bytes().take_while(u8::is_ascii_hexdigit).count();
    u32::from_str_radix(to.get(..digits).filter(|digits| digits.len() <= 4)?, 16).ok()
}

/// Reads the log on a thread of its own and tells what it sees. A log that cannot be read is said once; the node then
/// relies on the driver's events.
pub fn start(path: &Path, sightings: Sender<Sighting>) -> io::Result<()> {
    let path = path.to_owned();
    thread::Builder::new().name("kmsg".into()).stack_size(128 * 1024).spawn(move || {
        match follow(&path, &sightings) {
            Ok(()) => info!("the kernel's log at {} has ended", path.display()),
            Err(error) => warn!("XIDs of the kernel's log are not seen: read {}: {error}", path.display()),
        }
    })?;
    Ok(())
}

fn follow(path: &Path, sightings: &Sender<Sighting>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    // What the kernel said before this agent came was another's to see: a fault that lasts shows in the readings too.
    if !kind.is_fifo() {
        file.seek(SeekFrom::End(0))?;
    }
    let mut lines = Lines::default();
    let mut limit = Limit::default();
    let mut buffer = vec![0; LINE_MAX];
    while !sightings.is_closed() {
        match file.read(&mut buffer) {
            Ok(0) if kind.is_char_device() || kind.is_fifo() => return Ok(()),
            Ok(0) => thread::sleep(LOOK_AGAIN),
            Ok(length) => lines.take(&buffer[..length], |line| {
                if let Some(seen) = parse(line)
                    && limit.admits(Instant::now())
                    && let Err(TrySendError::Full(_)) = sightings.try_send(seen)
                {
                    limit.lost += 1;
                }
            }),
            // The kernel has overwritten what was not read in time.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => limit.lost += 1,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lines out of bytes, none longer than a record of the kernel's.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, whole) = match part.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (part, false),
            };
            let room = LINE_MAX - self.begun.len().min(LINE_MAX);
            self.begun.extend_from_slice(&line[..line.len().min(room)]);
            if whole {
                each(&self.begun);
                self.begun.clear();
            }
        }
    }
}

/// How much is taken in each second.
#[derive(Debug, Default)]
struct Limit {
    second: Option<Instant>,
    taken: u32,
    lost: u64,
}

impl Limit {
    fn admits(&mut self, now: Instant) -> bool {
        if self.second.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            if self.lost > 0 {
                warn!(lost = self.lost, "the kernel's log brought more XIDs than are taken in");
            }
            *self = Limit { second: Some(now), taken: 0, lost: 0 };
        }
        self.taken += 1;
        let admitted = self.taken <= PER_SECOND_MAX;
        self.lost += u64::from(!admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(line: &str) -> Option<(Which, u32, Option<u32>)> {
        parse(line.as_bytes()).map(|seen| (seen.which, seen.xid, seen.wanted))
    }

    #[test]
    fn lines_as_kernels_write_them() {
        let at = |domain, bus| Which::At((domain, bus, 0));
        let plain = "6,1234,5678,-;NVRM: Xid (PCI:0000:17:00): 79, pid='<unknown>', GPU has fallen off the bus.";
        assert_eq!(seen(plain), Some((at(0, 0x17), 79, None)));
        let recovery = "[171167.62] NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)";
        assert_eq!(seen(recovery), Some((at(9, 1), 154, Some(4))));
        let bare = "NVRM: Xid (PCI:00000000:AF:00.0): 31";
        assert_eq!(seen(bare), Some((at(0, 0xaf), 31, None)));
    }

    #[test]
    fn what_is_no_such_line_is_passed_over() {
        for line in [
            "",
            "NVRM: Xid (PCI:",
            "NVRM: Xid (PCI:0000:17:00)",
            "NVRM: Xid (PCI:0000:17:00): ",
            "NVRM: Xid (PCI:0000:17:00): 999999999999",
            "NVRM: Xid (PCI:0000:zz:00): 31",
            "NVRM: Xid (PCI:::): 31",
            "NVRM: Xid (PCI:0000000000017:17:00): 31",
        ] {
            assert_eq!(seen(line), None, "{line}");
        }
    }

    #[test]
    fn a_flood_is_cut() {
        let mut limit = Limit::default();
        let now = Instant::now();
        assert_eq!((0..1000).filter(|_| limit.admits(now)).count() as u32, PER_SECOND_MAX);
        assert!(limit.admits(now + Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..300usize) {
            let _ = parse(&bytes);
            let line = [b"x;NVRM: Xid (PCI:0000:17:00): 1".as_slice(), &bytes].concat();
            if let Some(seen) = parse(&line) {
                prop_assert!(seen.detail.chars().count() <= DETAIL_MAX && !seen.detail.contains(char::is_control));
            }
            let mut count = 0;
            let mut lines = Lines::default();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            lines.take(first, |_| count += 1);
            lines.take(second, |_| count += 1);
            prop_assert_eq!(count, bytes.iter().filter(|byte| **byte == b'\n').count());
        }
    }
}
