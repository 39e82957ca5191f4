//! What a test asks of the processes in its pods and on its nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// TCP or UDP.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// A TCP connection.
    Tcp,
    /// A connected UDP socket.
    Udp,
    /// A UDP socket that is not connected: `sendto` and `recvfrom`.
    UdpUnconnected,
    /// A connected UDP socket, with datagrams of [`LARGE`] bytes in both directions.
    UdpLarge,
}

/// Bytes of a datagram that goes in several fragments.
pub const LARGE: usize = 8000;

/// A request.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub enum Request {
    /// Serve under a name, on TCP and UDP.
    Serve {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// Dial and ask for a name, once or more often.
    Dial {
        /// What to dial.
        target: SocketAddr,
        /// How.
        how: How,
        /// How often, from a socket of its own each.
        times: u32,
        /// Milliseconds after which nobody is expected to answer.
        timeout_ms: u64,
    },
    /// Send an ICMP echo request; the answer's name is `pong`.
    Ping {
        /// Whom to ask.
        target: IpAddr,
        /// Milliseconds after which nobody is expected to answer.
        timeout_ms: u64,
    },
    /// Open a socket and keep it.
    Open {
        /// What to dial.
        target: SocketAddr,
        /// How.
        how: How,
        /// Number of the kept socket.
        id: u32,
    },
    /// Ask for a name on a kept socket.
    Again {
        /// Which.
        id: u32,
    },
    /// Send bytes to a pod over TCP, which sends back what hash they have.
    Bulk {
        /// What to dial.
        target: SocketAddr,
        /// How many bytes.
        bytes: u64,
    },
    /// Dial without end, until [`Request::Rest`].
    Load(Load),
    /// End the load and tell.
    Rest,
}

/// A load.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Load {
    /// What to dial, in turn.
    pub targets: Vec<SocketAddr>,
    /// New connections a second, each with a question and an answer.
    pub rate: u32,
    /// Streams that live as long as the load and exchange a line every 100 ms.
    pub streams: u32,
}

/// What became of a request.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Answers, by the name of the pod.
    pub answers: BTreeMap<String, u64>,
    /// Failures by kind: the name of the error, or `timeout`, or `wrong-answer`.
    pub errors: BTreeMap<String, u64>,
    /// `getpeername`, or whom `recvfrom` named.
    pub peers: BTreeSet<SocketAddr>,
    /// Whom the pods saw.
    pub clients: BTreeSet<IpAddr>,
    /// Of a load: what happened to streams.
    pub streams: Vec<Stream>,
    /// Of a load: the longest time from dialling to the answer, in milliseconds.
    pub slowest_ms: u64,
    /// Of a load: connections that took longer than 900 ms: a first SYN was lost.
    pub slow: u64,
}

impl Outcome {
    /// How many answers there were.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// How many failures there were.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Whether all was answered.
    ///
    /// # Errors
    /// Something failed, or there was nothing.
    pub fn well(self) -> Result<Self, String> {
        if self.failed() == 0 && self.answered() > 0 {
            Ok(self)
        } else {
            Err(format!("{self:?}"))
        }
    }

    /// Whether all failed in one way.
    ///
    /// # Errors
    /// Something was answered, or failed in another way.
    pub fn all_failed(self, how: &str) -> Result<Self, String> {
        let all = self.answered() == 0 && self.errors.keys().eq([how]);
        if all {
            Ok(self)
        } else {
            Err(format!("{self:?}, expected {how}"))
        }
    }
}

/// A long-lived stream.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Stream {
    /// The pods that answered on it, in their order: one, if nothing is wrong.
    pub pods: Vec<String>,
    /// Questions that were answered.
    pub beats: u64,
    /// What ended it, if it ended.
    pub error: Option<String>,
}
