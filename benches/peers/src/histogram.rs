//! A histogram of nanoseconds in log-linear buckets: each is at most 1.6 % wide.

/// Buckets per power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Values from 2^40 ns, 18 minutes, on are counted in the last bucket.
const BUCKET_COUNT: usize = (40 - STEP_BITS as usize + 1) * STEPS as usize;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKET_COUNT], total: 0 }
    }
}

impl Histogram {
    #[inline]
    pub fn record(&mut self, value_ns: u64) {
        self.counts[bucket_of(value_ns)] += 1;
        self.total += 1;
    }

    /// Takes over all that `other` has recorded.
    pub fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
    }

    /// The value that the share `quantile` of all values does not exceed, up to the width of a
    /// bucket; 0 when nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (quantile * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest_of(bucket);
            }
        }
        0
    }
}

/// Below `STEPS` a bucket is one value; above, the position of the highest bit chooses the
/// group and the bits after it the bucket inside the group.
fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    let group = u64::from(shift) + 1;
    let bucket = group * STEPS + (value >> shift) - STEPS;
    (bucket as usize).min(BUCKET_COUNT - 1)
}

fn highest_of(bucket: usize) -> u64 {
    let (group, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if group == 0 {
        return step;
    }
    let shift = group - 1;
    ((STEPS + step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_its_bucket_and_the_bucket_is_narrow() {
        for value in (0..100_000u64).chain((17..39).map(|bit| (1 << bit) + 12_345)) {
            let bucket = bucket_of(value);
            let lowest = if bucket == 0 { 0 } else { highest_of(bucket - 1) + 1 };
            let highest = highest_of(bucket);
            assert!((lowest..=highest).contains(&value), "{value} in {lowest}..={highest}");
            assert!((highest - lowest) as f64 <= value as f64 / 60.0);
        }
    }

    #[test]
    fn quantiles_of_a_uniform_distribution_are_their_rank() {
        let mut histogram = Histogram::default();
        for value in 1..=10_000 {
            histogram.record(value);
        }
        for (quantile, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let error = histogram.quantile(quantile) as f64 / expected - 1.0;
            assert!((0.0..0.02).contains(&error), "{quantile}: off by {error}");
        }
    }

    #[test]
    fn an_enormous_value_is_counted_in_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert!(histogram.quantile(0.5) >= (1 << 40) - 1);
    }
}
