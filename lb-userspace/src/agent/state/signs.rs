//! What the agent leaves for a process that answers health checks in its place
//! (`bascule health`), and how each of the two knows of the other.
//!
//! The agent keeps a record of what it would answer. While it vouches for it, it
//! touches the record every second, and its lock before that already: a time of
//! change is a sign of life. The other one keeps a shared lock while it answers, on a
//! file that the agent has made, because it may not write here.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, SystemTime},
};

use lb_plan::{HealthCheck, model::ServiceKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{LOCK, StateDir};
use crate::{
    health::{Facts, Heard},
    http::Turn,
};

/// What the agent would answer to health checks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// About the proxy.
    pub facts: Facts,
    /// Where `/healthz` and `/livez` are answered.
    pub healthz: Option<SocketAddr>,
    /// About Services with a `healthCheckNodePort`, by name.
    pub checks: Vec<(ServiceKey, HealthCheck)>,
}

/// The record.
pub(super) const RECORD: &str = "health.json";
/// Locked by whoever answers in the agent's place.
pub(super) const STAND_IN: &str = "health.lock";
/// How often the agent looks whether somebody has come to answer in its place. That
/// one has left is known at once.
const LOOK: Duration = Duration::from_millis(250);

impl StateDir {
    /// Writes the record, and so vouches for it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_record(&self, record: &Record) -> io::Result<()> {
        self.write(RECORD, record)
    }

    /// Gives a sign of life; one that `vouches` says that the record holds.
    ///
    /// # Errors
    /// A file cannot be touched.
    pub fn beat(&self, vouches: bool) -> io::Result<()> {
        let now = SystemTime::now();
        let touch = |name: &str| File::open(self.0.join(name))?.set_modified(now);
        touch(LOCK)?;
        if vouches { touch(RECORD) } else { Ok(()) }
    }

    /// The record and the signs of life, if an agent has ever left one here.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn record(&self) -> io::Result<Option<(Record, Heard)>> {
        let Some(record) = self.read::<Record>(RECORD)? else {
            return Ok(None);
        };
        let time = |name: &str| fs::metadata(self.0.join(name))?.modified();
        let vouched = time(RECORD)?;
        let silent = SystemTime::now().duration_since(vouched);
        // While it vouches nobody needs to know more, and its lock is left alone.
        let alive = silent.is_ok_and(|d| d >= record.facts.timeout) && self.is_claimed();
        let alive = alive.then(|| time(LOCK)).transpose()?;
        Ok(Some((record, Heard { vouched, alive })))
    }

    /// Whether another process answers in the agent's place.
    pub fn is_stood_in(&self) -> bool {
        let file = File::open(self.0.join(STAND_IN));
        file.is_ok_and(|f| matches!(f.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Follows whether another process answers in the agent's place: whose turn it is.
    ///
    /// # Errors
    /// The file cannot be made, or there can be no more threads.
    pub fn turn(&self) -> io::Result<Turn> {
        fs::create_dir_all(&self.0)?;
        let path = self.0.join(STAND_IN);
        let file = File::options().create(true).append(true).open(path)?;
        let (mine, turn) = watch::channel(!self.is_stood_in());
        thread::Builder::new()
            .name("stand-in".into())
            .spawn(move || follow(&file, &mine))?;
        Ok(turn)
    }

    /// Says that this process answers in the agent's place, until the file is closed;
    /// `None` where an agent that is asked to make room has not made the file.
    pub fn stand_in(&self) -> Option<File> {
        let file = File::open(self.0.join(STAND_IN)).ok()?;
        // An agent that looks at it holds it for a moment.
        file.try_lock_shared().ok()?;
        Some(file)
    }

    /// Whether a file of [`Self::stand_in`] is still the one that agents look at.
    pub fn is_seen(&self, file: &File) -> bool {
        let found = fs::metadata(self.0.join(STAND_IN));
        let own = file.metadata().map(|m| m.ino());
        found.is_ok_and(|m| own.is_ok_and(|ino| ino == m.ino()))
    }
}

/// Follows a lock until nobody listens.
fn follow(file: &File, mine: &watch::Sender<bool>) {
    while !mine.is_closed() {
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            mine.send_replace(false);
            // Waits for the end of the last one.
            if let Err(error) = file.lock() {
                tracing::warn!(%error, "health.lock in the state directory cannot be waited for");
                thread::sleep(LOOK);
                continue;
            }
        }
        // The one that comes next finds it free.
        let _ = file.unlock();
        mine.send_if_modified(|mine| !std::mem::replace(mine, true));
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let service = ServiceKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let check = HealthCheck {
            port: 32_000,
            local_ready: 2,
        };
        Record {
            facts: Facts::new(Duration::from_secs(60)),
            healthz: Some(([0, 0, 0, 0], 10_256).into()),
            checks: vec![(service, check)],
        }
    }

    #[test]
    fn signs_of_life_are_told_apart() {
        let dir = tempfile::TempDir::new().unwrap();
        let state = StateDir::new(dir.path());
        assert_eq!(state.record().unwrap(), None);
        let claim = state.claim().unwrap();
        state.beat(false).unwrap();
        assert_eq!(state.record().unwrap(), None, "it vouches for nothing");
        state.write_record(&record()).unwrap();
        state.beat(true).unwrap();
        let (read, heard) = state.record().unwrap().unwrap();
        assert_eq!((read, heard.alive), (record(), None));

        // It is silent for too long; its lock tells whether it is there.
        let then = SystemTime::now() - Duration::from_secs(60);
        let file = File::open(dir.path().join(RECORD)).unwrap();
        file.set_modified(then).unwrap();
        let (_, heard) = state.record().unwrap().unwrap();
        assert_eq!(heard.vouched, then);
        assert!(heard.alive.is_some_and(|at| at > then), "{heard:?}");
        drop(claim);
        let (_, heard) = state.record().unwrap().unwrap();
        assert_eq!(heard.alive, None);
    }

    #[tokio::test]
    async fn each_has_its_turn() {
        let dir = tempfile::TempDir::new().unwrap();
        let state = StateDir::new(dir.path());
        assert!(state.stand_in().is_none(), "there was no agent yet");
        let mut turn = state.turn().unwrap();
        assert!(*turn.borrow_and_update() && !state.is_stood_in());
        let stand_in = async || loop {
            // The agent may be looking.
            if let Some(file) = state.stand_in() {
                break file;
            }
            tokio::task::yield_now().await;
        };
        let first = stand_in().await;
        turn.wait_for(|mine| !mine).await.unwrap();
        let second = stand_in().await;
        drop(first);
        assert!(state.is_stood_in() && state.is_seen(&second));
        // An agent that starts now does not begin with a turn.
        assert!(!*state.turn().unwrap().borrow());
        drop(second);
        turn.wait_for(|mine| *mine).await.unwrap();
        let third = stand_in().await;
        fs::remove_file(dir.path().join(STAND_IN)).unwrap();
        assert!(!state.is_seen(&third), "an agent would make another file");
    }
}
