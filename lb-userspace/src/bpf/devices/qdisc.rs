//! clsact qdiscs that are of no use any more: those that held our filters and
//! hold none now.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// Enough for any datagram of a dump.
const BUFFER: usize = 64 * 1024;

/// Removes the clsact qdisc of a device, unless a filter is in it. A device that
/// has none is left as it is.
///
/// # Errors
/// The kernel refuses the dump or the removal.
pub(super) fn remove_if_empty(index: u32) -> io::Result<()> {
    for minor in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
        let mut of = message(index);
        of.header.parent = handle(minor);
        let request = RouteNetlinkMessage::GetTrafficFilter(of);
        if !ask(request, NLM_F_DUMP)? {
            return Ok(());
        }
    }
    let mut clsact = message(index);
    clsact.header.parent = TcHandle::CLSACT;
    clsact.header.handle = handle(0);
    // With its kind, the kernel refuses to remove any other one.
    clsact.attributes.push(TcAttribute::Kind("clsact".into()));
    match ask(RouteNetlinkMessage::DelQueueDiscipline(clsact), NLM_F_ACK) {
        Err(error) => match error.raw_os_error() {
            // There is none, it is of another kind, or the device is gone.
            Some(libc::ENOENT | libc::EINVAL | libc::ENODEV) => Ok(()),
            _ => Err(error),
        },
        Ok(_) => Ok(()),
    }
}

fn handle(minor: u16) -> TcHandle {
    let major = u16::MAX;
    TcHandle { major, minor }
}

fn message(index: u32) -> TcMessage {
    TcMessage::with_index(index as i32)
}

/// Sends a request and reads its answer; whether nothing was in it.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut empty = true;
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            // Of filters only the header is read: their options are others' own.
            let length = header_of(rest)?;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            match kind {
                NLMSG_DONE => return Ok(empty),
                NLMSG_ERROR => return acknowledged(&rest[..length]).map(|()| empty),
                _ => empty = false,
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

// include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HDRLEN: usize = 16;

/// The length of the message at the start of some bytes.
fn header_of(bytes: &[u8]) -> io::Result<usize> {
    let length = bytes
        .first_chunk::<4>()
        .map(|b| u32::from_ne_bytes(*b) as usize);
    match length {
        Some(length) if (NLMSG_HDRLEN..=bytes.len()).contains(&length) => Ok(length),
        _ => Err(io::Error::other("rtnetlink: a message is cut short")),
    }
}

/// An error of 0 is an acknowledgement.
fn acknowledged(message: &[u8]) -> io::Result<()> {
    let code = message[NLMSG_HDRLEN..].first_chunk::<4>();
    match code.map(|b| i32::from_ne_bytes(*b)) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::Error::other("rtnetlink: an error is cut short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_cut_short_is_no_panic() {
        assert!(header_of(&[1, 0]).is_err());
        assert!(header_of(&[0; 16]).is_err());
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
        assert_eq!(header_of(&bytes).unwrap(), 20);
        assert!(header_of(&bytes[..18]).is_err());
        assert!(acknowledged(&bytes).is_ok());
        bytes[16..].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        let error = acknowledged(&bytes).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(acknowledged(&bytes[..16]).is_err());
    }
}
