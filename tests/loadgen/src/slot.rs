//! One connection or socket of a load, and where its transaction is.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SocketType;

use super::http::{Asks, Broken, Exchange};
use super::measure::kind;
use super::proto::Mode;
use super::sockets::{Watcher, dial, put, take};

/// First byte of a connection whose bytes are not answered.
pub(crate) const BULK: u8 = b'b';
/// A question.
const QUESTION: u8 = b'q';
/// Bytes that are sent at once.
static CHUNK: [u8; 1 << 17] = [BULK; 1 << 17];

/// Where a transaction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// There is no connection, and nothing is asked.
    Closed,
    /// The connection is being made.
    Opening,
    /// The connection waits for a question.
    Idle,
    /// An answer is awaited.
    Asked,
    /// Bytes are sent.
    Sending,
}

/// What happened to a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing that ends a transaction.
    Goes,
    /// A server's answer: its name, or the first digit of its status.
    Answered(u8),
    /// Bytes were sent.
    Sent(usize),
    /// An error, by its kind.
    Failed(String),
}

/// A connection or socket.
pub(crate) struct Slot {
    mode: Mode,
    number: u64,
    socket: Option<OwnedFd>,
    /// What HTTP is spoken.
    exchange: Option<Exchange>,
    state: State,
    /// When the transaction began, or was due.
    pub(crate) since: Instant,
    /// When it is given up.
    pub(crate) until: Instant,
}

impl Slot {
    /// One without a connection; `asks` where it speaks HTTP.
    pub(crate) fn new(mode: Mode, number: u64, asks: Option<&Arc<Asks>>, now: Instant) -> Self {
        Self {
            mode,
            number,
            socket: None,
            exchange: asks.cloned().map(Exchange::new),
            state: State::Closed,
            since: now,
            until: now,
        }
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Opening | State::Asked) && self.mode != Mode::Bulk
    }

    /// Begins a transaction: opens what is not open, else asks.
    pub(crate) fn begin(&mut self, watcher: &Watcher, target: SocketAddr) -> Step {
        let begun = match self.state {
            State::Idle => self.question(),
            _ => self.open(watcher, target),
        };
        begun.unwrap_or_else(|e| self.fail(&kind(e)))
    }

    fn open(&mut self, watcher: &Watcher, target: SocketAddr) -> Result<Step, Errno> {
        let udp = self.mode == Mode::Urr;
        let socket_type = if udp {
            SocketType::DGRAM
        } else {
            SocketType::STREAM
        };
        let socket = dial(target, socket_type)?;
        let flags = match self.mode {
            // Of writing only: as long as there is room.
            Mode::Bulk => EventFlags::OUT,
            Mode::Urr => EventFlags::IN,
            // Once when it is connected, and once for every answer.
            Mode::Crr | Mode::Rr | Mode::Get | Mode::Tls => {
                EventFlags::IN | EventFlags::OUT | EventFlags::ET
            }
        };
        watcher.add(&socket, self.number, flags)?;
        self.socket = Some(socket);
        self.state = State::Opening;
        if let Some(exchange) = &mut self.exchange
            && let Err(Broken::Answer(why)) = exchange.open()
        {
            return Ok(self.fail(why));
        }
        if udp { self.question() } else { Ok(Step::Goes) }
    }

    fn question(&mut self) -> Result<Step, Errno> {
        if let Some(exchange) = &mut self.exchange {
            exchange.ask();
            self.state = State::Asked;
            return self.exchange();
        }
        match self.put(&[QUESTION]) {
            // Not connected yet.
            Err(Errno::AGAIN) => {}
            sent => {
                sent?;
                self.state = State::Asked;
            }
        }
        Ok(Step::Goes)
    }

    fn put(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::NOTCONN)?;
        put(socket.as_fd(), bytes)
    }

    /// Goes on after an event.
    pub(crate) fn go_on(&mut self) -> Step {
        let step = match self.state {
            State::Opening if self.mode == Mode::Bulk => self.send(),
            State::Opening => self.question(),
            State::Asked => self.answer(),
            State::Sending => self.send(),
            State::Closed | State::Idle => self.look(),
        };
        step.unwrap_or_else(|e| self.fail(&kind(e)))
    }

    /// Goes on with a question of HTTP, and its answer.
    fn exchange(&mut self) -> Result<Step, Errno> {
        let both = self.exchange.as_mut().zip(self.socket.as_ref());
        let (exchange, socket) = both.ok_or(Errno::NOTCONN)?;
        match exchange.go_on(socket.as_fd()) {
            Ok(None) => Ok(Step::Goes),
            Ok(Some(status)) => {
                let closes = self.mode == Mode::Tls || exchange.answer.closes;
                self.state = State::Idle;
                if closes {
                    self.close();
                }
                Ok(Step::Answered(status))
            }
            Err(Broken::System(error)) => Err(error),
            Err(Broken::Answer(why)) => Ok(self.fail(why)),
        }
    }

    fn answer(&mut self) -> Result<Step, Errno> {
        if self.exchange.is_some() {
            return self.exchange();
        }
        let socket = self.socket.as_ref().ok_or(Errno::NOTCONN)?;
        let mut byte = [0; 16];
        match take(socket.as_fd(), &mut byte) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(Step::Goes),
            Err(e) => Err(e),
            Ok(0) => Ok(self.fail("closed by the server")),
            Ok(_) => {
                self.state = State::Idle;
                if self.mode == Mode::Crr {
                    self.close();
                }
                Ok(Step::Answered(byte[0]))
            }
        }
    }

    fn send(&mut self) -> Result<Step, Errno> {
        self.state = State::Sending;
        match self.put(&CHUNK) {
            Ok(bytes) => Ok(Step::Sent(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Step::Goes),
            Err(e) => Err(e),
        }
    }

    /// An event that nobody waits for: the other side has closed, or it is an answer to a
    /// question that was given up.
    fn look(&mut self) -> Result<Step, Errno> {
        let Some(socket) = &self.socket else {
            return Ok(Step::Goes);
        };
        let mut bytes = [0; 16];
        match take(socket.as_fd(), &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(Step::Goes),
            Err(e) => Err(e),
            Ok(0) if self.mode != Mode::Urr => Ok(self.fail("closed by the server")),
            Ok(_) => Ok(Step::Goes),
        }
    }

    /// Whether the transaction takes too long.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        matches!(self.state, State::Opening | State::Asked) && now > self.until
    }

    /// Gives the transaction up.
    pub(crate) fn fail(&mut self, kind: &str) -> Step {
        self.close();
        Step::Failed(kind.to_owned())
    }

    fn close(&mut self) {
        self.socket = None;
        self.state = State::Closed;
    }
}
