//! A network namespace with the network of the vectors, for one thread.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::vectors::net::{DEVICES, Device, WAYS, Way};

/// Proof that this thread is in its own namespace. The namespace goes with the
/// thread.
#[derive(Debug)]
pub struct Namespace(());

/// A socket of the node.
#[derive(Debug)]
pub(super) enum Socket {
    /// Listens.
    Tcp(#[expect(dead_code, reason = "held open")] TcpListener),
    /// Is bound.
    Udp(#[expect(dead_code, reason = "held open")] UdpSocket),
}

impl Socket {
    /// Opens a socket.
    ///
    /// # Errors
    /// The address is taken, or not of the node.
    pub(super) fn open(proto: u8, at: SocketAddr) -> Result<Self> {
        let socket = match proto {
            6 => TcpListener::bind(at).map(Self::Tcp),
            _ => UdpSocket::bind(at).map(Self::Udp),
        };
        socket.with_context(|| format!("cannot bind a socket to {at}"))
    }
}

/// Runs something on a thread of its own, in a network namespace that has the
/// devices, neighbours and routes of [`crate::vectors::net`].
///
/// # Errors
/// The namespace cannot be made, for lack of privilege above all.
///
/// # Panics
/// What runs there panics.
pub fn in_namespace<T: Send + 'static>(
    run: impl FnOnce(&Namespace) -> Result<T> + Send + 'static,
) -> Result<T> {
    let thread = std::thread::spawn(move || {
        let namespace = enter()?;
        run(&namespace)
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn enter() -> Result<Namespace> {
    // SAFETY: geteuid reads a number and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    ensure!(
        root,
        "the packet vectors load programs into the kernel and make a network namespace: run them as root"
    );
    // SAFETY: unshare takes no memory; only this thread changes its namespace.
    let made = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(
        made == 0,
        "cannot make a network namespace: {}; CAP_SYS_ADMIN is needed, run the tests as root",
        std::io::Error::last_os_error()
    );
    ip("link set lo up")?;
    for device in &DEVICES {
        add_device(device)?;
    }
    for setting in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
        let path = format!("/proc/sys/net/{setting}");
        fs::write(&path, "1").with_context(|| format!("cannot write {path}"))?;
    }
    for way in &WAYS {
        add_way(way)?;
    }
    Ok(Namespace(()))
}

/// `ip` with arguments.
fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .context("cannot run `ip`: install iproute2")?;
    ensure!(
        output.status.success(),
        "`ip {args}` fails: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn mac(bytes: [u8; 6]) -> String {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    hex.join(":")
}

fn add_device(device: &Device) -> Result<()> {
    let Device { name, ifindex, .. } = device;
    let address = mac(device.mac);
    ip(&format!(
        "link add {name} index {ifindex} address {address} type veth peer name {name}p"
    ))?;
    // A duplicate address detection would leave addresses unusable for a second.
    for end in [(*name).to_owned(), format!("{name}p")] {
        let path = format!("/proc/sys/net/ipv6/conf/{end}/accept_dad");
        fs::write(&path, "0").with_context(|| format!("cannot write {path}"))?;
        ip(&format!("link set {end} up"))?;
    }
    for addr in device.addrs {
        let nodad = if addr.contains(':') { "nodad" } else { "" };
        ip(&format!("address add {addr} dev {name} {nodad}"))?;
    }
    Ok(())
}

fn add_way(way: &Way) -> Result<()> {
    let Way {
        net, prefix, via, ..
    } = way;
    let name = way.device.name;
    let mtu = match way.mtu {
        1500 => String::new(),
        // Forwarded packets heed a route's MTU only where it is locked.
        mtu => format!("mtu lock {mtu}"),
    };
    ip(&format!(
        "route add {net}/{prefix} via {via} dev {name} {mtu}"
    ))?;
    match way.mac {
        Some(address) => ip(&format!(
            "neighbour replace {via} lladdr {} dev {name} nud permanent",
            mac(address)
        )),
        None => Ok(()),
    }
}
