//! Helpers of the tests that need root, a kernel or a cluster.

pub mod e2e;
pub mod lab;
pub mod netns;
