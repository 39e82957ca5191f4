//! The vectors, by theme.

mod affinity;
mod checksum;
mod collisions;
mod conntrack;
mod cuts;
mod echo;
mod established;
mod fragments;
mod hairpin;
mod hostile;
mod icmp_errors;
mod icmp_others;
mod left;
mod link;
mod maglev;
mod new_flow;
mod policies;
mod ranges;
mod refused;
mod scene;
mod sctp;
mod snat;

use super::vector::Vector;

/// Every vector.
#[must_use]
pub fn all() -> Vec<Vector> {
    [
        new_flow::vectors(),
        established::vectors(),
        snat::vectors(),
        hairpin::vectors(),
        maglev::vectors(),
        affinity::vectors(),
        ranges::vectors(),
        policies::vectors(),
        refused::vectors(),
        echo::vectors(),
        fragments::vectors(),
        conntrack::vectors(),
        collisions::vectors(),
        checksum::vectors(),
        hostile::vectors(),
        link::vectors(),
        cuts::vectors(),
        icmp_errors::vectors(),
        icmp_others::vectors(),
        sctp::vectors(),
        left::vectors(),
    ]
    .concat()
}
