//! The deadline of a fenced lease as a file: written by the agent with every renewal, read by the guardians, who end the work
//! should the agent be gone or stopped. It need not outlive a crash of the machine, where nothing of the work does either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use uuid::Uuid;

/// The folder of deadlines, one file a lease.
#[derive(Clone, Debug)]
pub(crate) struct Deadlines {
    folder: PathBuf,
    boot_id: String,
}

impl Deadlines {
    pub(crate) fn below(state_dir: &Path, boot_id: &str) -> io::Result<Deadlines> {
        let folder = state_dir.join("fences");
        fs::create_dir_all(&folder)?;
        Ok(Deadlines { folder, boot_id: boot_id.to_owned() })
    }

    /// The file of a lease.
    pub(crate) fn file(&self, lease: Uuid) -> PathBuf {
        self.folder.join(lease.to_string())
    }

    /// Writes a deadline, on the boot-time clock.
    pub(crate) fn write(&self, lease: Uuid, deadline: Duration) -> io::Result<()> {
        let (file, next) = (self.file(lease), self.folder.join(format!("{lease}.new")));
        fs::write(&next, format!("{} {}\n", self.boot_id, deadline.as_millis()))?;
        fs::rename(next, file)
    }

    /// Forgets every lease but these.
    pub(crate) fn keep_only(&self, wanted: impl Fn(Uuid) -> bool) -> io::Result<()> {
        for (lease, file) in self.files()? {
            if !wanted(lease) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }

    /// Every deadline of this boot. A file that cannot be read is a deadline that has passed.
    pub(crate) fn load(&self) -> io::Result<BTreeMap<Uuid, Duration>> {
        let read = |(lease, file): (Uuid, PathBuf)| match parse(&fs::read_to_string(file).unwrap_or_default()) {
            Some((boot_id, _)) if boot_id != self.boot_id => None,
            Some((_, deadline)) => Some((lease, deadline)),
            None => Some((lease, Duration::ZERO)),
        };
        Ok(self.files()?.into_iter().filter_map(read).collect())
    }

    fn files(&self) -> io::Result<Vec<(Uuid, PathBuf)>> {
        let entries = fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
        let lease = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        Ok(entries.iter().filter_map(|entry| Some((lease(entry)?, entry.path()))).collect())
    }
}

/// The deadline in a file; one that is not there or cannot be read has passed.
pub(crate) fn read(file: &Path) -> Duration {
    let text = fs::read_to_string(file).unwrap_or_default();
    parse(&text).map_or(Duration::ZERO, |(_, deadline)| deadline)
}

fn parse(text: &str) -> Option<(&str, Duration)> {
    let (boot_id, deadline) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((boot_id, Duration::from_millis(deadline.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_back_in_its_boot_and_a_cut_one_has_passed() {
        let state = tempfile::tempdir().expect("a folder");
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let deadlines = Deadlines::below(state.path(), "boot-1").expect("made");
        deadlines.write(a, Duration::from_millis(1234)).expect("written");
        assert_eq!(read(&deadlines.file(a)), Duration::from_millis(1234));
        assert_eq!(read(&deadlines.file(b)), Duration::ZERO);
        assert_eq!(deadlines.load().expect("readable"), [(a, Duration::from_millis(1234))].into());
        let rebooted = Deadlines::below(state.path(), "boot-2").expect("there");
        assert!(rebooted.load().expect("readable").is_empty());
        fs::write(deadlines.file(b), "boot-1 12").expect("cut");
        assert_eq!(deadlines.load().expect("readable").get(&b), Some(&Duration::ZERO));
        deadlines.keep_only(|lease| lease == b).expect("removed");
        assert!(!deadlines.file(a).exists() && deadlines.file(b).exists());
    }
}
