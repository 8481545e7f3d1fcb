//! What many measurements come to, and whether two sets of them differ.

/// Minimum, median, 90th percentile and maximum.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least that nine in ten do not exceed (nearest rank): with fewer than ten it is the largest.
    pub p90: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Nothing where there are no values. All of them are finite.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let at = |index: usize| sorted.get(index).copied();
        let upper = at(count / 2)?;
        let median = if count % 2 == 1 { upper } else { f64::midpoint(at(count / 2 - 1)?, upper) };
        let rank = (count * 9).div_ceil(10);
        Some(Self { count, min: at(0)?, median, p90: at(rank.checked_sub(1)?)?, max: at(count - 1)? })
    }
}

/// Whether two sets of measurements differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More than chance explains, at [`LEVEL`].
    Real,
    /// Not more than chance explains.
    NotShown,
    /// With so few runs nothing could have been shown.
    CannotTell,
}

/// Chance explains a difference where it brings about one as large in more than one of a hundred comparisons.
pub const LEVEL: f64 = 0.01;

/// Up to this many values in all, every arrangement is counted; beyond, the normal approximation is good.
const EXACT_MAX: usize = 40;

/// Compares two sets by the rank-sum test of Mann and Whitney, two-sided: how likely it is that one set's ranks among all
/// would be as far from the middle if both came from one distribution. It asks nothing of the distribution.
#[must_use]
pub fn compare(a: &[f64], b: &[f64]) -> Verdict {
    let count = a.len() + b.len();
    // The most extreme arrangement, each way, is that likely.
    if count <= EXACT_MAX && 2.0 / binomial(count, a.len()) > LEVEL {
        return Verdict::CannotTell;
    }
    if a.is_empty() || b.is_empty() {
        return Verdict::CannotTell;
    }
    let likely = if count <= EXACT_MAX { exact(a, b) } else { approximate(a, b) };
    if likely < LEVEL { Verdict::Real } else { Verdict::NotShown }
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn binomial(n: usize, k: usize) -> f64 {
    (1..=k.min(n)).map(|i| (n - k + i) as f64 / i as f64).product()
}

/// Twice each value's rank among all, so that ties, which share a rank, have whole numbers: those of `a`, then of `b`.
fn doubled_ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let rank = |value: &f64| {
        let less = all.iter().filter(|other| *other < value).count();
        let same = all.iter().filter(|other| *other == value).count();
        2 * less + same + 1
    };
    all.iter().map(rank).collect()
}

/// The share of all ways to choose which values are `a`'s whose rank sum is at least as far from the middle.
#[allow(clippy::cast_precision_loss, reason = "sums of at most 40 ranks")]
fn exact(a: &[f64], b: &[f64]) -> f64 {
    let ranks = doubled_ranks(a, b);
    let total: usize = ranks.iter().sum();
    // ways[k][s]: how many choices of k values have the doubled rank sum s.
    let mut ways = vec![vec![0.0f64; total + 1]; a.len() + 1];
    ways[0][0] = 1.0;
    for rank in &ranks {
        for k in (1..=a.len()).rev() {
            for sum in (*rank..=total).rev() {
                ways[k][sum] += ways[k - 1][sum - rank];
            }
        }
    }
    let seen: usize = ranks.iter().take(a.len()).sum();
    let middle = total as f64 * a.len() as f64 / ranks.len() as f64;
    let distance = (seen as f64 - middle).abs();
    // Sums are halves at the finest.
    let as_far = |sum: usize| (sum as f64 - middle).abs() >= distance - 1e-6;
    let last = &ways[a.len()];
    let all: f64 = last.iter().sum();
    let extreme: f64 = last.iter().enumerate().filter(|(sum, _)| as_far(*sum)).map(|(_, ways)| ways).sum();
    extreme / all
}

/// The same by the normal distribution, with corrections for ties and continuity.
#[allow(clippy::cast_precision_loss, reason = "counts of runs")]
fn approximate(a: &[f64], b: &[f64]) -> f64 {
    let ranks = doubled_ranks(a, b);
    let (na, nb, n) = (a.len() as f64, b.len() as f64, ranks.len() as f64);
    let sum: f64 = ranks.iter().take(a.len()).map(|r| *r as f64 / 2.0).sum();
    let mean = na * (n + 1.0) / 2.0;
    let mut sorted = ranks.clone();
    sorted.sort_unstable();
    let ties: f64 = sorted.chunk_by(|x, y| x == y).map(|c| (c.len() as f64).powi(3) - c.len() as f64).sum();
    let variance = na * nb / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((sum - mean).abs() - 0.5).max(0.0) / variance.sqrt();
    two_sided(z)
}

/// How much of the normal distribution lies farther from its middle than `z`: Abramowitz and Stegun, formula 26.2.17.
fn two_sided(z: f64) -> f64 {
    const B: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series: f64 = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    2.0 * series * (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn summaries_of_known_values() {
        let one_to = |n: u32| (1..=n).rev().map(f64::from).collect::<Vec<_>>();
        let of = |n| Summary::of(&one_to(n)).unwrap();
        assert_eq!(of(10), Summary { count: 10, min: 1.0, median: 5.5, p90: 9.0, max: 10.0 });
        assert_eq!(of(11).p90, 10.0);
        assert_eq!(of(1), Summary { count: 1, min: 1.0, median: 1.0, p90: 1.0, max: 1.0 });
        assert_eq!((of(9).p90, of(100).p90), (9.0, 90.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn exact_probabilities_are_those_of_the_tables() {
        // Two sets that do not overlap: 2 / C(n, k).
        assert!((exact(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]) - 0.1).abs() < 1e-12);
        assert!((exact(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]) - 2.0 / 252.0).abs() < 1e-12);
        // U = 3 of 4 and 4: 14 of 70 arrangements are as far out.
        assert!((exact(&[1.0, 2.0, 3.0, 7.0], &[4.0, 5.0, 6.0, 8.0]) - 14.0 / 70.0).abs() < 1e-12);
        assert!((exact(&[1.0, 1.0], &[1.0, 1.0]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_normal_distribution_is_near_its_tables() {
        for (z, p) in [(0.0, 1.0), (1.0, 0.3173), (1.96, 0.05), (2.5758, 0.01), (4.0, 6.334e-5)] {
            assert!((two_sided(z) - p).abs() < 1e-4, "{z}: {}", two_sided(z));
        }
    }

    #[test]
    fn verdicts() {
        let around = |middle: f64, n: u32| (0..n).map(|i| middle + f64::from(i % 7)).collect::<Vec<_>>();
        for n in [5, 20, 50] {
            assert_eq!(compare(&around(100.0, n), &around(200.0, n)), Verdict::Real, "{n}");
            assert_eq!(compare(&around(100.0, n), &around(100.0, n)), Verdict::NotShown, "{n}");
        }
        assert_eq!(compare(&around(100.0, 4), &around(900.0, 4)), Verdict::CannotTell);
        assert_eq!(compare(&[], &around(1.0, 9)), Verdict::CannotTell);
        assert_eq!(compare(&[], &around(1.0, 99)), Verdict::CannotTell);
    }

    proptest! {
        #[test]
        fn a_summary_lies_in_order_among_its_values(values in prop::collection::vec(-1e9..1e9f64, 1..60)) {
            let s = Summary::of(&values).unwrap();
            prop_assert!(s.min <= s.median && s.median <= s.p90.max(s.median) && s.p90 <= s.max);
            prop_assert!(values.contains(&s.p90) && values.contains(&s.min) && values.contains(&s.max));
            let within = values.iter().filter(|v| **v <= s.p90).count();
            prop_assert!(within * 10 >= values.len() * 9);
        }

        /// Both ways of counting come to about the same, and neither minds which set is called the first.
        #[test]
        fn exact_and_approximate_agree(
            a in prop::collection::vec((0u8..30).prop_map(f64::from), 12..20),
            b in prop::collection::vec((10u8..40).prop_map(f64::from), 12..20),
        ) {
            let (exact_p, approximate_p) = (exact(&a, &b), approximate(&a, &b));
            prop_assert!((0.0..=1.0 + 1e-9).contains(&exact_p));
            prop_assert!((exact_p - approximate_p).abs() < 0.02, "{} {}", exact_p, approximate_p);
            prop_assert!((exact(&b, &a) - exact_p).abs() < 1e-9);
        }
    }
}
