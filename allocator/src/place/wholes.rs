//! How many pools of each class have how many whole chips free: says at once that a gang cannot fit, without looking at
//! any pool. What it calls possible may still lack CPU, memory or the right chips.

use crate::fleet::PoolIx;

/// The counts, kept in step with every change of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wholes {
    /// By class, then by whole chips free: how many pools.
    pools_with: Vec<Vec<u32>>,
    /// What each pool was counted as.
    counted: Vec<Option<(usize, u16)>>,
}

impl Wholes {
    /// A pool of a class has this many whole chips free now. Pools without chips have no class and are not counted.
    pub(crate) fn set(&mut self, pool: PoolIx, class: usize, whole: u16) {
        if class == crate::fleet::NO_CLASS {
            return;
        }
        if self.counted.len() <= pool {
            self.counted.resize(pool + 1, None);
        }
        if let Some((class, whole)) = self.counted[pool].replace((class, whole)) {
            self.pools_with[class][usize::from(whole)] -= 1;
        }
        if self.pools_with.len() <= class {
            self.pools_with.resize(class + 1, Vec::new());
        }
        let with = &mut self.pools_with[class];
        with.resize(with.len().max(usize::from(whole) + 1), 0);
        with[usize::from(whole)] += 1;
    }

    /// What a pool was counted as.
    pub(crate) fn counted(&self, pool: PoolIx) -> Option<(usize, u16)> {
        self.counted.get(pool).copied().flatten()
    }

    /// Whether so many replicas of `chips` whole chips might fit pools of these classes; `None` admits all.
    pub(crate) fn could_hold(&self, chips: u16, replicas: u32, classes: Option<&[usize]>) -> bool {
        let admitted = |class: &usize| classes.is_none_or(|classes| classes.contains(class));
        let fit = |(whole, pools): (usize, &u32)| (whole / usize::from(chips.max(1))) as u64 * u64::from(*pools);
        let classes = self.pools_with.iter().enumerate().filter(|(class, _)| admitted(class));
        let replicas_fit: u64 = classes.flat_map(|(_, with)| with.iter().enumerate().map(fit)).sum();
        chips == 0 || replicas_fit >= u64::from(replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_counts_as_what_it_has_now() {
        let mut wholes = Wholes::default();
        (0..3).for_each(|pool| wholes.set(pool, pool % 2, 8));
        assert!(wholes.could_hold(4, 6, None) && !wholes.could_hold(4, 7, None));
        wholes.set(0, 0, 3);
        assert!(wholes.could_hold(4, 2, Some(&[0])) && !wholes.could_hold(4, 3, Some(&[0])));
        assert!(wholes.could_hold(4, 2, Some(&[1])) && !wholes.could_hold(8, 3, None));
    }
}
