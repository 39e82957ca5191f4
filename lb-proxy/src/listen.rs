//! Listeners that come and go, and the connections that they accept.

mod count;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinHandle, JoinSet},
    time,
};

use count::Counted;
pub use count::{Connections, Counter};
use room::{Room, Seat};

use crate::rest::{Resting, Serving};

/// How long nothing is accepted when the process or the machine has no more files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Settings of listeners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Connections at once (`max-worker-connections` of ingress-nginx, 16384). What is beyond waits
    /// in the kernel; but those end first that rest.
    pub connections: usize,
    /// Connections that wait in the kernel until they are accepted, of each listener.
    pub backlog: i32,
    /// Whether another process of the same user may listen too: its successor.
    pub reuse_port: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 16384,
            backlog: 4096,
            reuse_port: false,
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Who dialled.
    pub remote: SocketAddr,
    /// What was dialled.
    pub local: SocketAddr,
}

/// Tells a connection when it has to come to its end.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Whether it has to end.
    pub fn is_near(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it has to end.
    pub async fn comes(&mut self) {
        // A listener without an owner drains as well.
        let _ = self.0.wait_for(|drains| *drains).await;
    }
}

/// An address that cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened at: {error}; free it, or give another one")]
pub struct Refused {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

/// Listeners whose connections one handler serves.
#[derive(Debug)]
pub struct Listeners {
    handler: Handler,
    options: Options,
    places: Arc<Semaphore>,
    counter: Arc<Counter>,
    open: BTreeMap<SocketAddr, Open>,
    closed: Vec<JoinHandle<()>>,
}

/// A listener, and the connections that it has accepted.
#[derive(Debug)]
struct Open {
    local: SocketAddr,
    drain: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Serves a connection.
#[derive(Clone)]
struct Handler(Arc<dyn Fn(TcpStream, Peer, Drain) -> Serving + Send + Sync>);

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handler")
    }
}

impl Listeners {
    /// None yet; `handler` serves a connection until it ends, or rests, and `counter` counts them.
    pub fn new<H, F>(handler: H, options: Options, counter: Arc<Counter>) -> Self
    where
        H: Fn(TcpStream, Peer, Drain) -> F + Send + Sync + 'static,
        F: Future<Output = Option<Box<dyn Resting>>> + Send + 'static,
    {
        let boxed = move |stream, peer, drain| Box::pin(handler(stream, peer, drain)) as Serving;
        Self {
            handler: Handler(Arc::new(boxed)),
            places: Arc::new(Semaphore::new(options.connections)),
            options,
            counter,
            open: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    /// Listens at these addresses and at no others. A listener that goes drains its
    /// connections; those of the others do not notice. `[::]` is for clients of both families,
    /// unless `0.0.0.0` is there with the same port.
    ///
    /// Needs a runtime of tokio. Returns which addresses cannot be listened at: they are tried
    /// again by the next call.
    pub fn set(&mut self, addresses: &BTreeSet<SocketAddr>) -> Vec<Refused> {
        self.closed.retain(|task| !task.is_finished());
        let gone = self
            .open
            .extract_if(.., |address, _| !addresses.contains(address));
        self.closed.extend(gone.map(|(_, open)| open.close()));
        let mut refused = Vec::new();
        for address in addresses {
            if self.open.contains_key(address) {
                continue;
            }
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            let both = address.ip() == Ipv6Addr::UNSPECIFIED && !addresses.contains(&v4);
            match self.listen(*address, both) {
                Ok(open) => {
                    self.open.insert(*address, open);
                }
                Err(error) => {
                    let address = *address;
                    refused.push(Refused { address, error });
                }
            }
        }
        refused
    }

    fn listen(&self, address: SocketAddr, both: bool) -> io::Result<Open> {
        let bind = |address, both| bind(address, both, self.options);
        let listener = on_any_host(address, both, bind)?;
        let local = listener.local_addr()?;
        let (drain, drains) = watch::channel(false);
        let accepting = Accepting {
            handler: self.handler.clone(),
            places: self.places.clone(),
            counter: self.counter.clone(),
            drain: Drain(drains),
            connections: JoinSet::new(),
            room: Room::new()?,
        };
        let task = tokio::spawn(accepting.run(listener));
        Ok(Open { local, drain, task })
    }

    /// Where it listens: with the port that the kernel chose, where 0 was asked for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.values().map(|open| open.local)
    }

    /// Stops listening, tells connections, and waits for their end. Returns how many are cut
    /// because they take longer than that.
    pub async fn drain(mut self, within: Duration) -> u64 {
        let open = std::mem::take(&mut self.open);
        let mut tasks = std::mem::take(&mut self.closed);
        tasks.extend(open.into_values().map(Open::close));
        let end = time::Instant::now() + within;
        for task in &mut tasks {
            // A task that panicked has dropped its connections.
            let _ = time::timeout_at(end, task).await;
        }
        let cut = self.counter.now().open;
        tasks.iter().for_each(JoinHandle::abort);
        cut
    }
}

impl Open {
    fn close(self) -> JoinHandle<()> {
        self.drain.send_replace(true);
        self.task
    }
}

struct Accepting {
    handler: Handler,
    places: Arc<Semaphore>,
    counter: Arc<Counter>,
    drain: Drain,
    connections: JoinSet<Option<Seat>>,
    room: Room,
}

impl Accepting {
    /// Accepts until the drain, and waits for the connections.
    async fn run(mut self, listener: TcpListener) {
        let mut drain = self.drain.clone();
        let mut short = false;
        loop {
            // One place is for who comes next.
            if self.places.available_permits() == 0 {
                self.room.make_places();
            }
            let accepted = tokio::select! {
                biased;
                () = drain.comes() => break,
                Some(ended) = self.connections.join_next() => {
                    self.rests(ended);
                    continue;
                }
                seat = self.room.leaves() => {
                    self.serve(seat.counted, seat.resting.wake());
                    continue;
                }
                accepted = accept(&listener, &self.places) => accepted,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    short = false;
                    let counted = self.counter.count(place);
                    let serving = (self.handler.0)(stream, peer, self.drain.clone());
                    self.serve(counted, serving);
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    if !short {
                        tracing::warn!(%error, "no connection can be accepted; trying again: raise the limit of open files, or lower that of connections");
                    }
                    short = true;
                    self.room.make_places();
                    time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        for seat in self.room.empty() {
            self.serve(seat.counted, seat.resting.wake());
        }
        while let Some(ended) = self.connections.join_next().await {
            match ended {
                Ok(None) => {}
                // It went to rest before it heard of the end.
                Ok(Some(seat)) => self.serve(seat.counted, seat.resting.wake()),
                Err(error) => tell(error),
            }
        }
    }

    fn serve(&mut self, counted: Counted, serving: Serving) {
        self.connections.spawn(async move {
            let resting = serving.await?;
            Some(Seat { resting, counted })
        });
    }

    /// What has ended, or rests from now on.
    fn rests(&mut self, ended: Result<Option<Seat>, JoinError>) {
        match ended {
            Ok(None) => {}
            Ok(Some(seat)) => {
                if let Err(error) = self.room.take(seat) {
                    tracing::debug!(%error, "a connection cannot rest, and ends");
                }
            }
            Err(error) => tell(error),
        }
    }
}

/// A connection's end that is none of its own.
fn tell(error: JoinError) {
    tracing::error!(%error, "a connection ended by a fault of the proxy");
}

type Accepted = (TcpStream, Peer, OwnedSemaphorePermit);

/// Waits for a place, then for a connection.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = places.clone().acquire_owned().await;
    // Nobody closes the semaphore.
    let place = place.map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    // Answers are written whole; nothing is gained by waiting for more.
    stream.set_nodelay(true)?;
    let (remote, local) = (canonical(remote), canonical(stream.local_addr()?));
    Ok((stream, Peer { remote, local }, place))
}

/// An address as its own family writes it: a socket for both has those of IPv4 in IPv6 (RFC 4291,
/// section 2.5.5.2).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an error is of one connection that broke before it was accepted (accept(2): those
/// are to be treated like "nothing there yet").
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, InvalidInput,
        NetworkDown, NetworkUnreachable, NotConnected, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            // Options of a connection that is gone.
            | InvalidInput
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | PermissionDenied
    )
}

/// A socket of an address, for its own family, or for `both`: for IPv4 alone on a host without
/// IPv6. `bind` makes one exactly so.
pub(crate) fn on_any_host<S>(
    address: SocketAddr,
    both: bool,
    bind: impl Fn(SocketAddr, bool) -> io::Result<S>,
) -> io::Result<S> {
    match bind(address, both) {
        Err(error)
            if both
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                ) =>
        {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        bound => bound,
    }
}

fn bind(address: SocketAddr, both: bool, options: Options) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!both)?;
    }
    // Connections of a predecessor that linger keep no address.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests;
