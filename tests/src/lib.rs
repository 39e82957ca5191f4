//! Helpers of the tests that need root, a kernel or a cluster.

pub mod bench;
pub mod e2e;
pub mod flows;
pub mod host;
pub mod ingress;
pub mod lab;
pub mod netns;
pub mod vectors;
