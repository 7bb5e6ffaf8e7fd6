//! What a workload says, in a file of bounded size: the newest part is kept. Bytes are counted from the first that the
//! replica ever wrote, over all its runs, so that a reader can go on from where it was.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A file and its predecessor (`.old`), together never larger than a limit.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    half: u64,
    file: File,
    written: u64,
    start: u64,
}

/// Which byte the file starts with, kept beside it (`.at`) and bound to that very file by its inode: between a change of
/// files and the note of it, a reader sees that the two do not belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Mark {
    start: u64,
    inode: u64,
}

impl Output {
    /// The output in this file, which is gone on with where it is there already.
    pub(crate) fn open(path: PathBuf, bytes_max: u64) -> io::Result<Output> {
        let known = read_mark(&path);
        let file = File::options().append(true).create(true).open(&path)?;
        let metadata = file.metadata()?;
        let start = known.filter(|mark| mark.inode == metadata.ino()).map_or(0, |mark| mark.start);
        let output = Output { path, half: (bytes_max / 2).max(1), file, written: metadata.len(), start };
        output.mark()?;
        Ok(output)
    }

    fn mark(&self) -> io::Result<()> {
        let mark = Mark { start: self.start, inode: self.file.metadata()?.ino() };
        let next = self.path.with_extension("next");
        fs::write(&next, serde_json::to_vec(&mark)?)?;
        fs::rename(next, self.path.with_extension("at"))
    }

    fn keep(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.written >= self.half {
                fs::rename(&self.path, self.path.with_extension("old"))?;
                self.start += self.written;
                (self.file, self.written) = (File::create(&self.path)?, 0);
                self.mark()?;
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

/// What is kept of an output, opened: both files at one moment.
#[derive(Debug)]
pub(crate) struct Kept {
    files: Vec<(u64, u64, File)>,
}

impl Kept {
    /// Opens what is kept in this file; `None` where nothing has been written.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Kept>> {
        for _ in 0..100 {
            let mut file = match File::open(path) {
                Ok(file) => file,
                // Between its renaming and the next.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.with_extension("old").exists() => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let old = File::open(path.with_extension("old")).ok();
            let Some(mark) = read_mark(path).filter(|mark| file.metadata().is_ok_and(|own| own.ino() == mark.inode))
            else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            let mut files = Vec::new();
            if let Some(old) = old {
                let (length, inode) = (old.metadata()?.len(), old.metadata()?.ino());
                if inode == mark.inode {
                    // It was renamed between the two, and the mark has not followed yet.
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                // Both were opened before the mark was found to fit, so this is the file right before.
                files.push((mark.start.saturating_sub(length), length, old));
            }
            let length = file.seek(SeekFrom::End(0))?;
            files.push((mark.start, length, file));
            return Ok(Some(Kept { files }));
        }
        Err(io::Error::other("the output changes too fast to be read"))
    }

    /// The first byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.files.first().map_or(0, |(start, ..)| *start)
    }

    /// The byte after the last.
    pub(crate) fn end(&self) -> u64 {
        self.files.last().map_or(0, |(start, length, _)| start + length)
    }

    /// At most `limit` bytes from `offset` on, or from the first that is kept after it. Answers where they start.
    pub(crate) fn read(&mut self, offset: u64, limit: usize) -> io::Result<(u64, Vec<u8>)> {
        let from = offset.clamp(self.start(), self.end());
        let mut bytes = Vec::new();
        for (start, length, file) in &mut self.files {
            let at = from + bytes.len() as u64;
            if at >= *start && at < *start + *length && bytes.len() < limit {
                file.seek(SeekFrom::Start(at - *start))?;
                let room = (limit - bytes.len()) as u64;
                (&*file).take(room.min(*start + *length - at)).read_to_end(&mut bytes)?;
            }
        }
        Ok((from, bytes))
    }

    /// The last `lines` lines, at most `limit` bytes of them. Answers where they start.
    pub(crate) fn tail(&mut self, lines: u32, limit: usize) -> io::Result<(u64, Vec<u8>)> {
        let (start, mut bytes) = self.read(self.end().saturating_sub(limit as u64), limit)?;
        let ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        // A line that is not ended yet is one of them.
        let skipped = usize::from(bytes.last() == Some(&b'\n')) + lines as usize;
        let cut = match lines {
            0 => bytes.len(),
            _ => ends.skip(skipped - 1).map(|at| at + 1).next().unwrap_or(0),
        };
        bytes.drain(..cut);
        Ok((start + cut as u64, bytes))
    }
}

fn read_mark(path: &Path) -> Option<Mark> {
    serde_json::from_slice(&fs::read(path.with_extension("at")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(count: u32) -> Vec<u8> {
        (0..count).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn the_newest_is_kept_and_the_limit_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stdout");
        let said = said(100_000);
        Output::open(path.clone(), 20_000).expect("made").follow(said.as_slice());
        let mut kept = Kept::open(&path).expect("readable").expect("there");
        assert_eq!(kept.end(), 100_000);
        let (start, bytes) = kept.read(0, usize::MAX).expect("read");
        assert!(bytes.len() <= 20_000 && bytes.len() >= 10_000 && start == kept.start());
        assert_eq!(bytes, said[start as usize..]);
        let (start, bytes) = kept.read(95_000, 100).expect("read");
        assert_eq!((start, bytes.as_slice()), (95_000, &said[95_000..95_100]));
        assert_eq!(kept.read(200_000, 10).expect("read"), (100_000, Vec::new()), "past the end there is nothing yet");
    }

    #[test]
    fn a_second_run_goes_on_where_the_first_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stdout");
        let said = said(50_000);
        Output::open(path.clone(), 20_000).expect("made").follow(&said[..33_333]);
        Output::open(path.clone(), 20_000).expect("made").follow(&said[33_333..]);
        let mut kept = Kept::open(&path).expect("readable").expect("there");
        assert_eq!(kept.end(), 50_000);
        let (start, bytes) = kept.read(0, usize::MAX).expect("read");
        assert!(start > 0 && bytes == said[start as usize..]);
    }

    #[test]
    fn a_tail_is_whole_lines_and_bytes_stay_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stdout");
        Output::open(path.clone(), 1000).expect("made").follow(&b"one\ntwo\nthr\xff\xc3"[..]);
        let mut kept = Kept::open(&path).expect("readable").expect("there");
        assert_eq!(kept.tail(2, 100).expect("read"), (4, b"two\nthr\xff\xc3".to_vec()));
        assert_eq!(kept.tail(9, 100).expect("read").0, 0);
        assert_eq!(kept.tail(0, 100).expect("read"), (13, Vec::new()));
        assert_eq!(kept.tail(5, 3).expect("read"), (10, b"r\xff\xc3".to_vec()));
        assert!(Kept::open(&folder.path().join("stderr")).expect("readable").is_none());
    }
}
