//! Samples, and what they say.

use serde::Serialize;

/// Samples of which it can be told how far their median is to be believed.
const ENOUGH: usize = 10;

/// Least, median and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of samples in any order; `None` where there are none.
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self {
            min: first,
            median,
            max: last,
        })
    }
}

/// The ratio of each sample to that at the same place.
pub(super) fn ratios(samples: &[f64], to: &[f64]) -> Vec<f64> {
    let pairs = samples.iter().zip(to);
    pairs.map(|(sample, to)| sample / to).collect()
}

/// What a row must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// At most this: of the ratio where there is one, else of the median; see [`Row`].
    AtMost(f64),
    /// At least this, likewise.
    AtLeast(f64),
}

impl Target {
    /// Whether a value reaches it.
    pub(super) fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// `≤` or `≥`.
    pub(super) fn sign(self) -> char {
        match self {
            Self::AtMost(_) => '≤',
            Self::AtLeast(_) => '≥',
        }
    }

    /// The number.
    pub(super) fn limit(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }
}

/// Where a row's figure stands in a table of many figures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spot {
    /// Heading of the table.
    pub(super) table: String,
    /// Its line.
    pub(super) line: String,
    /// Its column.
    pub(super) column: String,
}

/// One row of the result.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Suite: `xdp`, `tc`, `control`, `traffic`, `l7`.
    pub(super) suite: String,
    /// What was measured.
    pub(super) case: String,
    /// Unit of the samples.
    pub(super) unit: String,
    /// One sample a repetition.
    pub(super) samples: Vec<f64>,
    /// What the samples are compared with, and its sample in the same repetition.
    pub(super) reference: Option<(String, Vec<f64>)>,
    /// What the row must reach.
    pub(super) target: Option<Target>,
    /// Decide by the greatest sample and not by the median: a limit on memory.
    pub(super) by_max: bool,
    /// Where its figure stands, among others that are alike; else it has a line of its own.
    pub(super) spot: Option<Spot>,
    /// The target is of the samples, and not of the ratio.
    pub(super) of_value: bool,
}

impl Row {
    /// A row without samples.
    pub(super) fn new(suite: &str, case: impl Into<String>, unit: &str) -> Self {
        Self {
            suite: suite.to_owned(),
            case: case.into(),
            unit: unit.to_owned(),
            samples: Vec::new(),
            reference: None,
            target: None,
            by_max: false,
            spot: None,
            of_value: false,
        }
    }

    /// Adds a repetition: its sample, and that of what it is compared with.
    pub(super) fn add(&mut self, sample: f64, reference: f64) {
        self.samples.push(sample);
        if let Some((_, samples)) = &mut self.reference {
            samples.push(reference);
        }
    }

    /// Least, median and greatest sample.
    pub(super) fn spread(&self) -> Option<Spread> {
        Spread::of(&self.samples)
    }

    /// Median of the ratios, each of two samples that were taken one after the
    /// other: what the machine does besides changes both.
    pub(super) fn ratio(&self) -> Option<f64> {
        Spread::of(&self.ratios()).map(|s| s.median)
    }

    fn ratios(&self) -> Vec<f64> {
        let reference = self.reference.as_ref();
        reference.map_or_else(Vec::new, |(_, reference)| ratios(&self.samples, reference))
    }

    /// Between which values the median of all ratios that there could be lies with a
    /// probability of 95 %, however they are distributed; `None` for few samples.
    pub(super) fn interval(&self) -> Option<[f64; 2]> {
        let mut ratios = self.ratios();
        if ratios.len() < ENOUGH {
            return None;
        }
        ratios.sort_by(f64::total_cmp);
        // How many ratios are below the median is binomial: n/2 ± 1.96 √n/2 (Conover, Practical
        // Nonparametric Statistics, 3.2).
        let count = ratios.len() as f64;
        let rank = ((count - 1.96 * count.sqrt()) / 2.0).floor() as usize;
        let below = rank.saturating_sub(1);
        Some([ratios[below], ratios[ratios.len() - 1 - below]])
    }

    /// Whether the target is reached; `None` where there is none.
    pub(super) fn met(&self) -> Option<bool> {
        let spread = self.spread()?;
        let plain = if self.by_max {
            spread.max
        } else {
            spread.median
        };
        let ratio = self.ratio().filter(|_| !self.of_value);
        Some(self.target?.met(ratio.unwrap_or(plain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 10.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.5, 10.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_of_samples_of_the_same_repetition() {
        let mut row = Row::new("xdp", "a", "ns");
        row.reference = Some(("floor".to_owned(), Vec::new()));
        row.target = Some(Target::AtMost(2.0));
        // The machine slows down; the ratio does not change.
        row.add(20.0, 10.0);
        row.add(40.0, 20.0);
        row.add(100.0, 50.0);
        assert_eq!(row.ratio(), Some(2.0));
        assert_eq!(row.met(), Some(true));
        row.target = Some(Target::AtLeast(2.1));
        assert_eq!(row.met(), Some(false));
    }

    #[test]
    fn an_interval_is_of_ranks() {
        let mut row = Row::new("traffic", "a", "1/s");
        row.reference = Some(("direct".to_owned(), Vec::new()));
        for n in 1..=9 {
            row.add(f64::from(n), 1.0);
        }
        assert_eq!(row.interval(), None);
        for n in 10..=100 {
            row.add(f64::from(n), 1.0);
        }
        // As tables of the binomial distribution have it for 100: the 40th and the 61st.
        assert_eq!(row.interval(), Some([40.0, 61.0]));
    }

    #[test]
    fn a_target_may_be_of_the_samples_beside_a_ratio() {
        let mut row = Row::new("control", "start", "s");
        row.reference = Some(("another".to_owned(), Vec::new()));
        row.target = Some(Target::AtMost(1.5));
        row.add(1.0, 0.5);
        assert_eq!(row.met(), Some(false));
        row.of_value = true;
        assert_eq!((row.met(), row.ratio()), (Some(true), Some(2.0)));
    }

    #[test]
    fn without_a_reference_the_sample_itself_must_reach_the_target() {
        let mut row = Row::new("control", "memory", "MiB");
        row.samples = vec![100.0, 120.0, 160.0];
        assert_eq!(row.met(), None);
        row.target = Some(Target::AtMost(150.0));
        assert_eq!(row.met(), Some(true));
        row.by_max = true;
        assert_eq!(row.met(), Some(false));
    }
}
