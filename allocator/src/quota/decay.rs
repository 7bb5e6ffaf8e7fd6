//! Decay of past use, in integers: the same log gives the same averages on every machine, bit for bit.

use chiptide_model::Millis;

/// An exponentially weighted average of slots held, in 2⁻³² slots.
pub(crate) type Average = u64;

/// Fraction bits of an [`Average`].
pub(crate) const AVERAGE_BITS: u32 = 32;

/// Fraction bits of a factor.
const FACTOR_BITS: u32 = 63;
const ONE: u64 = 1 << FACTOR_BITS;

/// 2 to the power of -1/2, -1/4, -1/8, …: each the square root of the one before.
const ROOTS: [u64; 48] = {
    let mut roots = [0; 48];
    let mut last = ONE / 2;
    let mut at = 0;
    while at < roots.len() {
        last = ((last as u128) << FACTOR_BITS).isqrt() as u64;
        roots[at] = last;
        at += 1;
    }
    roots
};

/// What is left of one after this span: `2^(-span / half_life)`, in 2⁻⁶³.
pub(crate) fn left_after(span: Millis, half_life: Millis) -> u64 {
    let half_life = half_life.0.max(1);
    let (whole, rest) = (span.0 / half_life, span.0 % half_life);
    if whole >= u64::from(FACTOR_BITS) {
        return 0;
    }
    let fraction = ((u128::from(rest) << ROOTS.len()) / u128::from(half_life)) as u64;
    let used = ROOTS.iter().enumerate().filter(|(at, _)| fraction & (1 << (ROOTS.len() - 1 - at)) != 0);
    used.fold(ONE >> whole, |factor, (_, root)| times(factor, *root))
}

/// The average after a span in which `held` slots were held throughout.
pub(crate) fn blend(average: Average, held: u64, left: u64) -> Average {
    let held = held.saturating_mul(1 << AVERAGE_BITS);
    times(average, left).saturating_add(times(held, ONE - left))
}

fn times(value: u64, factor: u64) -> u64 {
    ((u128::from(value) * u128::from(factor)) >> FACTOR_BITS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(span: u64, half_life: u64) -> f64 {
        left_after(Millis(span), Millis(half_life)) as f64 / ONE as f64
    }

    #[test]
    fn half_is_left_after_a_half_life_and_little_is_lost_in_a_millisecond() {
        assert_eq!(share(1000, 1000), 0.5);
        assert_eq!(share(0, 1000), 1.0);
        assert_eq!(share(1_000_000, 1000), 0.0);
        for (span, half_life) in [(1, 86_400_000), (1234, 5000), (7 * 86_400_000, 86_400_000)] {
            let exact = 0.5f64.powf(span as f64 / half_life as f64);
            assert!((share(span, half_life) - exact).abs() < 1e-9, "{span} of {half_life}");
        }
    }

    #[test]
    fn many_small_steps_come_to_the_same_as_a_large_one() {
        let half_life = Millis::from_secs(86_400);
        let step = left_after(Millis(10), half_life);
        let small = (0..100_000).fold(0, |average, _| blend(average, 8000, step));
        let large = blend(0, 8000, left_after(Millis(1_000_000), half_life));
        assert!(small.abs_diff(large) < large / 1_000_000 + 1, "{small} against {large}");
    }

    #[test]
    fn what_is_held_for_ever_is_what_is_averaged() {
        let held = blend(0, 80_000_000, 0);
        assert_eq!(held >> AVERAGE_BITS, 79_999_999 + u64::from(held & 0xffff_ffff == 0));
    }
}
