//! What a workload says, in a file of bounded size: the newest part is kept.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// A file and its predecessor (`.old`), together never larger than a limit.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    half: u64,
    file: File,
    written: u64,
}

impl Output {
    pub(crate) fn create(path: PathBuf, bytes_max: u64) -> io::Result<Output> {
        Ok(Output { file: File::create(&path)?, path, half: (bytes_max / 2).max(1), written: 0 })
    }

    fn keep(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.written >= self.half {
                fs::rename(&self.path, self.path.with_extension("old"))?;
                (self.file, self.written) = (File::create(&self.path)?, 0);
            }
            let room = usize::try_from(self.half - self.written).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.file.write_all(now)?;
            (self.written, bytes) = (self.written + now.len() as u64, later);
        }
        Ok(())
    }

    /// Keeps all that comes, until its writers are gone. A disk that takes no more costs output, never the workload.
    pub(crate) fn follow(mut self, mut from: impl Read) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => drop(self.keep(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_and_the_limit_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stdout");
        let said: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        Output::create(path.clone(), 20_000).expect("made").follow(said.as_slice());
        let kept = [fs::read(path.with_extension("old")).expect("old"), fs::read(&path).expect("new")].concat();
        assert!(kept.len() <= 20_000 && kept.len() >= 10_000);
        assert!(said.ends_with(&kept));
    }
}
