//! What a gap on a chip is worth: how much of a whole chip the shares that will come could save by using it.
//!
//! Packing shares into as few chips as possible is the cutting-stock problem. Its dual prices say what a slot in a gap
//! is worth: a gap that many shares would fill is worth its part of a chip, one that hardly any fits is worth nothing.
//! Prices by column generation: P. C. Gilmore, R. E. Gomory, "A linear programming approach to the cutting-stock
//! problem", Operations Research 9 (1961). Plain IEEE arithmetic in a fixed order, so the result is the same everywhere.

use chiptide_model::{SLOTS_PER_CHIP, SlotCount};
use std::cmp::Reverse;
use std::collections::BTreeMap;

const CHIP: usize = SLOTS_PER_CHIP as usize;
/// Sizes that are priced, the most frequent ones; the others are too rare to fill gaps.
const SIZES_MAX: usize = 48;
/// Bound on the rounds of column generation; the prices at hand are used then. Real mixes need about two per size.
const ROUNDS_MAX: usize = 400;
const TINY: f64 = 1e-9;

/// What a gap of each size wastes: its slots less what it is worth. Nothing for a whole chip. Without any demand for
/// shares, every gap is wasted.
pub(crate) fn waste(shares: &BTreeMap<SlotCount, u64>) -> Vec<i64> {
    let mut common: Vec<(SlotCount, u64)> = shares.iter().map(|(size, count)| (*size, *count)).collect();
    common.retain(|(size, count)| *size > 0 && usize::from(*size) < CHIP && *count > 0);
    common.sort_unstable_by_key(|(size, count)| (Reverse(*count), *size));
    common.truncate(SIZES_MAX);
    common.sort_unstable();
    let prices = prices(&common);
    let items: Vec<(usize, f64)> =
        common.iter().zip(prices).map(|((size, _), price)| (usize::from(*size), price)).collect();
    let worth = fill(&items).0;
    let wasted = |gap: usize| if gap == CHIP { 0 } else { gap as i64 - (worth[gap] * CHIP as f64).round() as i64 };
    (0..=CHIP).map(wasted).collect()
}

/// What a slot for each size is worth, in chips: the dual prices of the cutting-stock problem.
fn prices(sizes: &[(SlotCount, u64)]) -> Vec<f64> {
    let n = sizes.len();
    let total: f64 = sizes.iter().map(|(_, count)| *count as f64).sum();
    // The basis begins with chips full of one size each; `inverse` is its inverse, row by row.
    let alone: Vec<f64> = sizes.iter().map(|(size, _)| (CHIP / usize::from(*size)) as f64).collect();
    let mut inverse: Vec<Vec<f64>> =
        (0..n).map(|row| (0..n).map(|col| if row == col { 1.0 / alone[row] } else { 0.0 }).collect()).collect();
    let mut used: Vec<f64> = sizes.iter().zip(&alone).map(|((_, count), per)| *count as f64 / total / per).collect();
    let mut prices = column_sums(&inverse);
    for _ in 0..ROUNDS_MAX {
        let items: Vec<(usize, f64)> =
            sizes.iter().zip(&prices).map(|((size, _), price)| (usize::from(*size), *price)).collect();
        let (worth, pattern) = fill(&items);
        if worth[CHIP] <= 1.0 + 1e-7 {
            break;
        }
        let direction: Vec<f64> =
            inverse.iter().map(|row| row.iter().zip(&pattern).map(|(x, y)| x * y).sum()).collect();
        let ratios = (0..n).filter(|&row| direction[row] > TINY).map(|row| (used[row] / direction[row], row));
        let Some((step, leaving)) = ratios.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))) else { break };
        for row in 0..n {
            used[row] = if row == leaving { step } else { (used[row] - step * direction[row]).max(0.0) };
        }
        let pivot: Vec<f64> = inverse[leaving].iter().map(|x| x / direction[leaving]).collect();
        for row in (0..n).filter(|row| *row != leaving) {
            inverse[row].iter_mut().zip(&pivot).for_each(|(x, p)| *x -= direction[row] * p);
        }
        inverse[leaving] = pivot;
        prices = column_sums(&inverse);
    }
    // The prices of the last round may overvalue a full chip a little; a chip is worth a chip.
    prices
}

/// Every chip costs one, so the prices are the sums of the inverse's columns; a price below nothing is nothing.
fn column_sums(inverse: &[Vec<f64>]) -> Vec<f64> {
    (0..inverse.len()).map(|col| inverse.iter().map(|row| row[col]).sum::<f64>().max(0.0)).collect()
}

/// The most valuable filling of every gap up to a whole chip, and for the whole chip how many of each item it takes.
fn fill(items: &[(usize, f64)]) -> (Vec<f64>, Vec<f64>) {
    let mut worth = vec![0.0f64; CHIP + 1];
    let mut last: Vec<Option<usize>> = vec![None; CHIP + 1];
    for gap in 1..=CHIP {
        worth[gap] = worth[gap - 1];
        for (item, (size, price)) in items.iter().enumerate() {
            if *size <= gap && worth[gap - size] + price > worth[gap] + TINY {
                worth[gap] = worth[gap - size] + price;
                last[gap] = Some(item);
            }
        }
    }
    let (mut pattern, mut gap) = (vec![0.0; items.len()], CHIP);
    while gap > 0 {
        match last[gap] {
            Some(item) => {
                pattern[item] += 1.0;
                gap -= items[item].0;
            }
            None => gap -= 1,
        }
    }
    (worth, pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasted(shares: &[(SlotCount, u64)], gaps: &[usize]) -> Vec<i64> {
        let waste = waste(&shares.iter().copied().collect());
        gaps.iter().map(|gap| waste[*gap]).collect()
    }

    #[test]
    fn a_gap_is_worth_what_demand_makes_of_it() {
        // Halves fill halves; what is left of a half is wasted.
        assert_eq!(wasted(&[(500, 10)], &[499, 500, 700, 1000]), [499, 0, 200, 0]);
        // Plenty of chips with 200 left, few shares of 200: such a gap is worth nothing, they will find one anyhow.
        assert_eq!(wasted(&[(800, 100), (200, 10)], &[200]), [200]);
        // The other way round, each gap of 200 saves a fifth of a chip.
        assert_eq!(wasted(&[(800, 10), (200, 100)], &[200]), [0]);
        assert_eq!(wasted(&[], &[1, 999, 1000]), [1, 999, 0]);
    }

    #[test]
    fn a_full_chip_is_never_worth_more_than_a_chip() {
        let sizes: Vec<(SlotCount, u64)> = (1..40).map(|i| (i * 23, u64::from(i * i % 17 + 1))).collect();
        let items: Vec<(usize, f64)> =
            sizes.iter().zip(prices(&sizes)).map(|((size, _), price)| (usize::from(*size), price)).collect();
        assert!((fill(&items).0[CHIP] - 1.0).abs() < 1e-6);
    }
}
