//! A load: new connections at a rate, and streams that live on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::proto::{How, Load, Outcome, Stream};
use super::worker::{Socket, kind};

/// Threads that dial: each has one connection at a time.
const DIALLERS: u32 = 16;
/// How long a dial may take before it counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that took longer has had its first SYN lost (it is sent again after 1 s).
const SLOW: Duration = Duration::from_millis(900);
/// How often a stream exchanges a line.
const BEAT: Duration = Duration::from_millis(100);

/// A load that runs.
pub(super) struct Running {
    state: Arc<State>,
    diallers: Vec<JoinHandle<()>>,
    streams: Vec<JoinHandle<Stream>>,
}

struct State {
    load: Load,
    start: Instant,
    ticket: AtomicU64,
    stop: AtomicBool,
    outcome: Mutex<Outcome>,
}

impl Running {
    pub(super) fn start(load: Load) -> Self {
        let state = Arc::new(State {
            load,
            start: Instant::now(),
            ticket: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            outcome: Mutex::new(Outcome::default()),
        });
        let diallers = (0..DIALLERS)
            .map(|_| state.clone())
            .map(|s| std::thread::spawn(move || dial(&s)));
        let targets = state.load.targets.iter().copied().cycle();
        let streams = targets.take(state.load.streams as usize).map(|target| {
            let state = state.clone();
            std::thread::spawn(move || stream(&state, target))
        });
        Self {
            diallers: diallers.collect(),
            streams: streams.collect(),
            state,
        }
    }

    pub(super) fn stop(self) -> Outcome {
        self.state.stop.store(true, Ordering::Relaxed);
        let mut panics = 0;
        for thread in self.diallers {
            panics += u64::from(thread.join().is_err());
        }
        let streams: Vec<_> = self.streams.into_iter().map(JoinHandle::join).collect();
        let mut outcome = self
            .state
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for stream in streams {
            match stream {
                Ok(stream) => outcome.streams.push(stream),
                Err(_) => panics += 1,
            }
        }
        if panics > 0 {
            outcome.errors.insert("panic".to_owned(), panics);
        }
        outcome
    }
}

/// Dials when it is time for it.
fn dial(state: &State) {
    if state.load.rate == 0 {
        return;
    }
    while !state.stop.load(Ordering::Relaxed) {
        let ticket = state.ticket.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_micros(ticket * 1_000_000 / u64::from(state.load.rate));
        std::thread::sleep(due.saturating_sub(state.start.elapsed()));
        let targets = &state.load.targets;
        let target = targets[usize::try_from(ticket).unwrap_or(0) % targets.len()];
        let begin = Instant::now();
        let result = Socket::open(target, How::Tcp, TIMEOUT).and_then(|mut s| s.ask());
        let took = begin.elapsed();
        let mut outcome = state.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.count(result);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        outcome.slowest_ms = outcome.slowest_ms.max(millis);
        outcome.slow += u64::from(took > SLOW);
    }
}

/// Talks over one connection until the load ends.
fn stream(state: &State, target: SocketAddr) -> Stream {
    let mut seen = Stream::default();
    let mut socket = match Socket::open(target, How::Tcp, TIMEOUT) {
        Ok(socket) => socket,
        Err(error) => {
            seen.error = Some(format!("open: {}", kind(&error)));
            return seen;
        }
    };
    while !state.stop.load(Ordering::Relaxed) {
        match socket.ask() {
            Ok((answer, _)) => {
                seen.beats += 1;
                if seen.pods.last() != Some(&answer.pod) {
                    seen.pods.push(answer.pod);
                }
            }
            Err(error) => {
                seen.error = Some(kind(&error));
                return seen;
            }
        }
        std::thread::sleep(BEAT);
    }
    seen
}
