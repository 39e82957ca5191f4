//! A small cluster on this machine, made by a test and taken down with it: nodes with the
//! real agent, pods, a client outside, and the traffic between them.

pub mod agent;
pub mod apiserver;
pub mod build;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod hooks;
pub mod kube_proxy;
pub mod load;
pub mod netns;
pub mod node;
pub mod objects;
pub mod peer;
mod ping;
pub mod pod;
pub mod prometheus;
pub mod proto;
pub mod pty;
pub mod seccomp;
pub mod server;
pub mod worker;
pub mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Waits until `check` is content, and says what it complained about last if it never is.
///
/// # Panics
/// It never is.
pub fn eventually<T>(within: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + within;
    loop {
        match check() {
            Ok(found) => return found,
            Err(why) if Instant::now() > end => panic!("not within {within:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A program that is built beside the tests.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the kernel knows a process's program");
    // target/PROFILE/deps/TEST, or target/PROFILE/NAME
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not beside {}: `cargo build --workspace`",
            Path::new(&own).display()
        )
    })
}
