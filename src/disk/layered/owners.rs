//! Which of many layers has a unit: looked up in a time that does not depend on their number.

use std::sync::Arc;

use super::UNITS_PER_REGION;
use super::bitmap::Words;

/// A layer, by its place in the chain.
pub(super) type Owner = u16;

/// No layer has the unit.
pub(super) const NOBODY: Owner = Owner::MAX;

const UNITS: usize = 32 * 1024;

/// Runs above which one owner is kept for each unit instead.
const MOST_RUNS: usize = UNITS / 4;

/// The owners of the units of one region, in order.
pub(super) type Dense = [Owner; UNITS];

/// The owner of every unit of a disk. Clones share what is large.
///
/// It takes 24 bytes for each region of 128 MiB. Of a region that is not one layer's as a whole, it takes 4 bytes for each
/// run of units of one owner, and 64 KiB at most: with which a disk of 1 TiB that is as torn as can be takes 512 MiB.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    /// Beyond the last: nobody's.
    regions: Vec<Region>,
}

#[derive(Clone, Debug)]
enum Region {
    /// All of it is one layer's.
    Whole(Owner),
    /// Sorted; the first begins at 0.
    Runs(Arc<[Run]>),
    Dense(Arc<[Owner]>),
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// The first unit, counted from the start of the region.
    first: u16,
    owner: Owner,
}

impl Region {
    /// The owner of a unit and the end of a run of units that are its; at most `limit`, except for cheap ones.
    fn run(&self, unit: usize, limit: usize) -> (Owner, usize) {
        match self {
            Self::Whole(owner) => (*owner, UNITS),
            Self::Runs(runs) => {
                let after = runs.partition_point(|run| usize::from(run.first) <= unit);
                let owner = after.checked_sub(1).and_then(|at| runs.get(at)).map_or(NOBODY, |run| run.owner);
                (owner, runs.get(after).map_or(UNITS, |run| run.first.into()))
            }
            Self::Dense(owners) => {
                let mut rest = owners.iter().skip(unit).take(limit.saturating_sub(unit).max(1));
                let owner = rest.next().copied().unwrap_or(NOBODY);
                (owner, unit + 1 + rest.take_while(|next| **next == owner).count())
            }
        }
    }

    fn unpack(&self, dense: &mut Dense) {
        match self {
            Self::Whole(owner) => dense.fill(*owner),
            Self::Runs(runs) => {
                let ends = runs.iter().skip(1).map(|run| usize::from(run.first)).chain([UNITS]);
                for (run, end) in runs.iter().zip(ends) {
                    if let Some(units) = dense.get_mut(usize::from(run.first)..end) {
                        units.fill(run.owner);
                    }
                }
            }
            Self::Dense(owners) => dense.copy_from_slice(owners),
        }
    }

    fn pack(dense: &Dense) -> Self {
        let changes = dense.windows(2).filter(|pair| pair.first() != pair.last()).count();
        if changes == 0 {
            return Self::Whole(dense[0]);
        }
        if changes >= MOST_RUNS {
            return Self::Dense(dense.as_slice().into());
        }
        let starts = (0u16..).zip(dense.chunk_by(|a, b| a == b));
        let mut first = 0u16;
        let runs = starts.filter_map(|(_, run)| {
            let begins = first;
            // Of the last one it is not looked at.
            first = first.wrapping_add(u16::try_from(run.len()).unwrap_or_default());
            run.first().map(|owner| Run { first: begins, owner: *owner })
        });
        Self::Runs(runs.collect())
    }
}

impl Owners {
    /// The owner of a unit, and the end of the run of units that are its, as far as it was looked for: at most `limit`.
    pub(super) fn run(&self, unit: u64, limit: u64) -> (Owner, u64) {
        let region = usize::try_from(unit / UNITS_PER_REGION).ok().and_then(|region| self.regions.get(region));
        let Some(region) = region else { return (NOBODY, limit) };
        let start = unit - unit % UNITS_PER_REGION;
        let inside = |unit: u64| usize::try_from((unit - start).min(UNITS_PER_REGION)).unwrap_or(UNITS);
        let (owner, end) = region.run(inside(unit), inside(limit));
        (owner, (start + end as u64).min(limit))
    }

    /// Changes the owners of the units of a region.
    pub(super) fn change(&mut self, region: u32, change: impl FnOnce(&mut Dense)) {
        let region = usize::try_from(region).unwrap_or(usize::MAX);
        if self.regions.len() <= region {
            self.regions.resize(region.saturating_add(1), Region::Whole(NOBODY));
        }
        let Some(region) = self.regions.get_mut(region) else { return };
        let mut dense = Box::new([NOBODY; UNITS]);
        region.unpack(&mut dense);
        change(&mut dense);
        *region = Region::pack(&dense);
    }
}

/// Gives the units whose bits are set to `owner`.
pub(super) fn give(dense: &mut Dense, words: &Words, owner: Owner) {
    for (units, word) in dense.as_chunks_mut::<64>().0.iter_mut().zip(words) {
        match *word {
            0 => {}
            u64::MAX => units.fill(owner),
            word => {
                for (at, unit) in units.iter_mut().enumerate() {
                    if word >> at & 1 == 1 {
                        *unit = owner;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The owners of a region, asked one after the other and in runs.
    fn all(owners: &Owners, region: u64) -> Vec<Owner> {
        let (from, to) = (region * UNITS_PER_REGION, (region + 1) * UNITS_PER_REGION);
        let mut all = Vec::new();
        let mut at = from;
        while at < to {
            let (owner, end) = owners.run(at, to);
            assert!(at < end && end <= to);
            for unit in [at, end - 1] {
                assert_eq!(owners.run(unit, unit + 1), (owner, unit + 1));
            }
            all.resize(usize::try_from(end - from).unwrap(), owner);
            at = end;
        }
        all
    }

    #[test]
    fn every_way_to_keep_them_tells_the_same() {
        let patterns: [fn(usize) -> Owner; 6] = [
            |_| 7,
            |_| NOBODY,
            |unit| u16::from(unit >= 100),
            |unit| u16::try_from(unit / 5).unwrap(),
            |unit| u16::try_from(unit % 300).unwrap(),
            |unit| if unit == UNITS - 1 { 9 } else { NOBODY },
        ];
        for pattern in patterns {
            let mut owners = Owners::default();
            owners.change(2, |dense| dense.iter_mut().enumerate().for_each(|(unit, owner)| *owner = pattern(unit)));
            let wanted: Vec<_> = (0..UNITS).map(pattern).collect();
            assert!(all(&owners, 2) == wanted);
            // Also once they were taken out and put back.
            owners.change(2, |dense| assert!(dense[..] == wanted));
            assert!(all(&owners, 2) == wanted);
            assert!(all(&owners, 1) == [NOBODY; UNITS] && all(&owners, 3) == [NOBODY; UNITS]);
        }
    }

    #[test]
    fn bits_give_their_units_to_a_layer() {
        let (mut dense, mut words) = (Box::new([3; UNITS]), [0; super::super::bitmap::WORDS]);
        (words[1], words[2], words[511]) = (u64::MAX, 0b101, 1 << 63);
        give(&mut dense, &words, 4);
        let given: Vec<_> = (0..UNITS).filter(|unit| dense[*unit] == 4).collect();
        assert_eq!(given, (64..128).chain([128, 130, UNITS - 1]).collect::<Vec<_>>());
    }

    #[test]
    fn it_takes_what_the_documentation_says() {
        assert!(size_of::<Region>() <= 24 && size_of::<Run>() == 4, "{}", size_of::<Region>());
    }
}
