//! Histograms of requests. Those of [`prometheus_client`] have a lock each; a request is in six.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// The bounds of ingress-nginx's `--time-buckets`, in microseconds.
pub(super) const TIMES: [u64; 11] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
/// The bounds of ingress-nginx's `--length-buckets`, in bytes.
pub(super) const LENGTHS: [u64; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100];

/// Values that do not lie above each of some bounds, and above the one before.
#[derive(Debug)]
pub(super) struct Histogram<const BOUNDS: usize> {
    counts: [AtomicU64; BOUNDS],
    above: AtomicU64,
    sum: AtomicU64,
}

/// Of times.
pub(super) type Times = Histogram<{ TIMES.len() }>;
/// Of lengths.
pub(super) type Lengths = Histogram<{ LENGTHS.len() }>;

impl<const BOUNDS: usize> Default for Histogram<BOUNDS> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    fn add(&self, value: u64, bounds: &[u64; BOUNDS]) {
        let place = bounds.iter().position(|bound| value <= *bound);
        let count = place.map_or(&self.above, |place| &self.counts[place]);
        count.fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Writes it; a value is so many of `unit`.
    fn write(
        &self,
        mut encoder: MetricEncoder<'_>,
        bounds: &[u64; BOUNDS],
        unit: f64,
    ) -> std::fmt::Result {
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        let bounds = bounds.iter().map(|bound| *bound as f64 / unit);
        let mut buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        buckets.push((f64::INFINITY, self.above.load(Relaxed)));
        // Of what is counted meanwhile, the sum may have a value more.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.sum.load(Relaxed) as f64 / unit;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Times {
    /// One more.
    pub(super) fn observe(&self, time: Duration) {
        // 64 bits are 584,000 years.
        self.add(time.as_micros() as u64, &TIMES);
    }

    /// Writes it, in seconds.
    pub(super) fn encode(&self, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.write(encoder, &TIMES, 1e6)
    }
}

impl Lengths {
    /// One more.
    pub(super) fn observe(&self, bytes: u64) {
        self.add(bytes, &LENGTHS);
    }

    /// Writes it, in bytes.
    pub(super) fn encode(&self, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.write(encoder, &LENGTHS, 1.0)
    }
}
