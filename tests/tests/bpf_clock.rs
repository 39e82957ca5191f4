//! The clock of the programs against the kernel's own.

use std::time::{Duration, Instant};

use lb_common::conntrack::TICK_SHIFT;
use lb_userspace::bpf::conntrack::now;

#[test]
fn a_tick_lasts_as_long_as_it_says() {
    let next = |last: u32| {
        loop {
            let now = now();
            if now != last {
                return (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (first, start) = next(now());
    let (second, end) = next(first);
    assert_eq!(second, first + 1);
    let expected = Duration::from_nanos(1 << TICK_SHIFT);
    // A jiffy is 10 ms at most, and the frequencies of kernels differ by a sixth at least.
    let took = end - start;
    assert!(took.abs_diff(expected) < expected / 10, "{took:?}");
}
