//! What a person sees while a program runs: a bar on a terminal, now and then a line elsewhere. Never on stdout.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One step under way.
#[derive(Debug)]
pub struct Progress {
    title: String,
    total: u64,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// Begins a step of `total` parts.
    pub fn start(title: &str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "  {spinner} {msg} [{bar:30}] {pos}/{len} {elapsed}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style).with_message(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("  {title} …");
        }
        Progress { title: title.to_owned(), total, bar, last_line: Mutex::new(Instant::now()) }
    }

    /// So many parts are done.
    pub fn at(&self, done: u64) {
        self.show(done, "");
    }

    /// So many parts are done, and this is how things stand.
    pub fn show(&self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(if note.is_empty() { self.title.clone() } else { format!("{}: {note}", self.title) });
            return;
        }
        // Poisoning would need a panic in the two lines below.
        let Ok(mut last) = self.last_line.lock() else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("  {}: {done}/{} {note}", self.title, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Announces step `number` of `of`.
pub fn step(number: u32, of: u32, what: &str) {
    eprintln!("[{number}/{of}] {what}");
}

/// Says what came of a step.
pub fn done(what: &str) {
    eprintln!("  {what}");
}
