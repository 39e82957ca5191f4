//! One request by netlink, and its answers, for the families that have crates.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Room for one datagram; the kernel makes dumps of 32 KiB at most.
pub(crate) const DATAGRAM: usize = 64 << 10;

/// Sends one request and reads its answers to the end.
///
/// # Errors
/// What the kernel answers; an interrupted dump ([`io::ErrorKind::Interrupted`]) is to
/// be asked for again; an answer that cannot be read.
pub(crate) fn ask<M>(
    protocol: isize,
    request: M,
    flags: u16,
    mut visit: impl FnMut(M),
) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.send_to(&message(request, flags), &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        if answers(&buffer, &mut visit)? {
            return Ok(());
        }
    }
}

/// A request as it is sent.
pub(crate) fn message<M: NetlinkSerializable>(request: M, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the answers of a datagram; `true` when they have ended.
///
/// # Errors
/// As [`ask`].
pub(crate) fn answers<M>(mut bytes: &[u8], mut visit: impl FnMut(M)) -> io::Result<bool>
where
    M: NetlinkDeserializable,
{
    while bytes.len() >= HEADER {
        let answer = NetlinkMessage::<M>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if answer.header.flags & NLM_F_DUMP_INTR != 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = (answer.header.length as usize).next_multiple_of(4);
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => visit(message),
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return error.code.map_or(Ok(true), |_| Err(error.to_io()));
            }
            _ => {}
        }
        bytes = bytes.get(len.max(HEADER)..).unwrap_or_default();
    }
    Ok(false)
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
