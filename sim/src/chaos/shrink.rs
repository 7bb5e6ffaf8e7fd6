//! Makes a story shorter while it still goes wrong: halves are left out, then quarters, down to single steps.

use super::rules::Rules;
use super::step::Step;
use super::tell;

/// Most stories told to shrink one.
const TRIES_MAX: usize = 300;

/// The shortest story found in which the same invariant breaks.
pub(super) fn shrink(seed: u64, steps: &[Step], rules: Rules, what: &str) -> Vec<Step> {
    let kind = |what: &str| what.split(':').next().unwrap_or_default().to_owned();
    let wanted = kind(what);
    let fails = |steps: &[Step]| tell(seed, steps, rules).found.is_some_and(|(_, found)| kind(&found) == wanted);
    let (mut best, mut tries) = (steps.to_vec(), 0);
    let mut size = best.len().div_ceil(2);
    while size > 0 && tries < TRIES_MAX {
        let (mut at, mut shrunk) = (0, false);
        while at < best.len() && tries < TRIES_MAX {
            let end = (at + size).min(best.len());
            let shorter = [&best[..at], &best[end..]].concat();
            tries += 1;
            if fails(&shorter) {
                (best, shrunk) = (shorter, true);
            } else {
                at = end;
            }
        }
        if !shrunk || size > 1 {
            size /= 2;
        }
    }
    best
}
