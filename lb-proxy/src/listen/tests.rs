use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const ANY: &str = "127.0.0.1:0";

/// Writes what it reads, and `!` when it drains.
async fn echo(mut stream: TcpStream, peer: Peer, mut drain: Drain) -> Option<Box<dyn Resting>> {
    assert_eq!(canonical(stream.peer_addr().unwrap()), peer.remote);
    let mut byte = [0];
    loop {
        tokio::select! {
            () = drain.comes() => {
                let _ = stream.write_all(b"!").await;
                // Until the client goes.
                let _ = stream.read(&mut byte).await;
                return None;
            }
            read = stream.read(&mut byte) => match read {
                Ok(1..) if byte == *b"p" => panic!("as it was told"),
                Ok(1..) => stream.write_all(&byte).await.unwrap(),
                _ => return None,
            },
        }
    }
}

fn set_of(addresses: &[&str]) -> BTreeSet<SocketAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

async fn says(client: &mut TcpStream, byte: u8) -> u8 {
    client.write_all(&[byte]).await.unwrap();
    hears(client).await
}

async fn hears(client: &mut TcpStream) -> u8 {
    time::timeout(Duration::from_secs(10), client.read_u8())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn listeners_come_and_go() {
    let counter = Arc::new(Counter::default());
    let mut listeners = Listeners::new(echo, Options::default(), counter.clone());
    assert!(listeners.set(&set_of(&[ANY, "[::1]:0"])).is_empty());
    let [v4, v6] = listeners.addresses().collect::<Vec<_>>()[..] else {
        panic!()
    };
    let mut first = TcpStream::connect(v4).await.unwrap();
    let mut second = TcpStream::connect(v6).await.unwrap();
    assert_eq!(says(&mut first, b'a').await, b'a');
    assert_eq!(says(&mut second, b'b').await, b'b');
    assert_eq!(counter.now().open, 2);

    assert!(listeners.set(&set_of(&["[::1]:0"])).is_empty());
    assert_eq!(hears(&mut first).await, b'!');
    assert_eq!(says(&mut second, b'c').await, b'c');
    assert_eq!(listeners.addresses().collect::<Vec<_>>(), [v6]);
    drop(first);

    let drained = tokio::spawn(listeners.drain(Duration::from_secs(10)));
    assert_eq!(hears(&mut second).await, b'!');
    TcpStream::connect(v4).await.unwrap_err();
    TcpStream::connect(v6).await.unwrap_err();
    drop(second);
    assert_eq!(drained.await.unwrap(), 0);
}

/// The port that the kernel chose for the only address, or the first of them.
fn port(listeners: &Listeners) -> u16 {
    listeners.addresses().next().unwrap().port()
}

/// Of all clients, whatever their family: with their own addresses, not as IPv6 writes those of
/// IPv4 (RFC 4291, section 2.5.5.2).
#[tokio::test]
async fn the_unspecified_address_of_ipv6_is_for_both_families() {
    let (seen, mut peers) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |_: TcpStream, peer: Peer, _: Drain| {
        let seen = seen.clone();
        async move {
            seen.send(peer).unwrap();
            None
        }
    };
    let mut listeners = Listeners::new(tell, Options::default(), Arc::default());
    assert!(listeners.set(&set_of(&["[::]:0"])).is_empty());
    for ip in ["127.0.0.1", "::1"] {
        let to: SocketAddr = (ip.parse::<std::net::IpAddr>().unwrap(), port(&listeners)).into();
        let client = TcpStream::connect(to).await.unwrap();
        let peer = peers.recv().await.unwrap();
        assert_eq!(peer.remote, client.local_addr().unwrap());
        assert_eq!(peer.local, to);
    }
}

#[tokio::test]
async fn the_unspecified_addresses_go_together() {
    let free = bind("0.0.0.0:0".parse().unwrap(), false, Options::default()).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let both = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    let mut listeners = Listeners::new(echo, Options::default(), Arc::default());
    let refused = listeners.set(&set_of(&both.each_ref().map(String::as_str)));
    assert!(refused.is_empty(), "{refused:?}");
    for ip in ["127.0.0.1", "::1"] {
        let to = (ip.parse::<std::net::IpAddr>().unwrap(), port);
        let mut client = TcpStream::connect(to).await.unwrap();
        assert_eq!(says(&mut client, b'a').await, b'a');
    }
}

#[tokio::test]
async fn what_drains_too_long_is_cut() {
    let mut listeners = Listeners::new(echo, Options::default(), Arc::default());
    listeners.set(&set_of(&[ANY]));
    let address = listeners.addresses().next().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(says(&mut client, b'a').await, b'a');
    assert_eq!(listeners.drain(Duration::from_millis(50)).await, 1);
    assert_eq!(hears(&mut client).await, b'!');
    let end = time::timeout(Duration::from_secs(10), client.read_u8()).await;
    assert!(end.unwrap().is_err());
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let options = Options {
        connections: 1,
        ..Options::default()
    };
    let mut listeners = Listeners::new(echo, options, Arc::default());
    listeners.set(&set_of(&[ANY]));
    let address = listeners.addresses().next().unwrap();
    let mut first = TcpStream::connect(address).await.unwrap();
    assert_eq!(says(&mut first, b'a').await, b'a');
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"b").await.unwrap();
    let early = time::timeout(Duration::from_millis(100), second.read_u8()).await;
    assert!(early.is_err());
    // A fault of one connection makes room for the next, and ends nothing else.
    first.write_all(b"p").await.unwrap();
    assert_eq!(hears(&mut second).await, b'b');
}

#[tokio::test]
async fn an_address_that_is_taken() {
    let taken = TcpListener::bind(ANY).await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut listeners = Listeners::new(echo, Options::default(), Arc::default());
    let both = BTreeSet::from([address, ANY.parse().unwrap()]);
    let refused = listeners.set(&both);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].address, address);
    assert_eq!(refused[0].error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(listeners.addresses().count(), 1);
    drop(taken);
    assert!(listeners.set(&both).is_empty());
    assert_eq!(listeners.addresses().count(), 2);
}

#[tokio::test]
async fn a_successor_listens_beside() {
    let options = Options {
        reuse_port: true,
        ..Options::default()
    };
    let first = bind(ANY.parse().unwrap(), false, options).unwrap();
    let address = first.local_addr().unwrap();
    bind(address, false, options).unwrap();
    let alone = bind(address, false, Options::default()).unwrap_err();
    assert_eq!(alone.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn errors_of_one_connection() {
    // Numbers of Linux, of errno(3).
    for (number, name, of_connection) in [
        (103, "ECONNABORTED", true),
        (1, "EPERM", true),
        (4, "EINTR", true),
        (100, "ENETDOWN", true),
        (113, "EHOSTUNREACH", true),
        (101, "ENETUNREACH", true),
        (24, "EMFILE", false),
        (23, "ENFILE", false),
        (105, "ENOBUFS", false),
        (12, "ENOMEM", false),
    ] {
        let error = io::Error::from_raw_os_error(number);
        assert_eq!(is_of_connection(&error), of_connection, "{name}");
    }
}
