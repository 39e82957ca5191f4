//! Connections one after the other until the right server answers: when does a change take effect?

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SocketType;

use super::measure::kind;
use super::proto::{Attempts, Until};
use super::sockets::{Watcher, dial, put, take};

/// Dials until the right server answers, or the time is over.
///
/// # Errors
/// The clock is before 1970, or there are too few descriptors.
pub(crate) fn until(request: &Until) -> Result<Attempts> {
    ensure!(request.answer.is_ascii(), "servers answer by one byte");
    let end = Instant::now() + Duration::from_millis(request.timeout_ms);
    let mut outcome = Attempts::default();
    let mut watcher = Watcher::new()?;
    while Instant::now() < end {
        outcome.attempts += 1;
        match attempt(request, &mut watcher) {
            Ok(byte) if char::from(byte) == request.answer => {
                let at = SystemTime::now().duration_since(UNIX_EPOCH);
                let at = at.context("the clock is before 1970")?;
                outcome.at_ns = u64::try_from(at.as_nanos()).ok();
                break;
            }
            Ok(_) => {}
            Err(e) => *outcome.errors.entry(kind(e)).or_default() += 1,
        }
        std::thread::sleep(Duration::from_micros(request.pause_us));
    }
    Ok(outcome)
}

/// One connection, one byte each way.
fn attempt(request: &Until, watcher: &mut Watcher) -> rustix::io::Result<u8> {
    let end = Instant::now() + Duration::from_millis(request.attempt_ms);
    let socket = dial(request.target, SocketType::STREAM)?;
    watcher.add(
        &socket,
        0,
        EventFlags::IN | EventFlags::OUT | EventFlags::ET,
    )?;
    ready(watcher, end)?;
    put(socket.as_fd(), b"q")?;
    loop {
        ready(watcher, end)?;
        if let Some(byte) = answer(&socket)? {
            return Ok(byte);
        }
    }
}

fn ready(watcher: &mut Watcher, end: Instant) -> rustix::io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        if !watcher.wait(Some(left))?.is_empty() {
            return Ok(());
        }
    }
}

fn answer(socket: &OwnedFd) -> rustix::io::Result<Option<u8>> {
    let mut byte = [0; 1];
    match take(socket.as_fd(), &mut byte) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Ok(0) => Err(Errno::CONNRESET),
        other => other.map(|_| Some(byte[0])),
    }
}
