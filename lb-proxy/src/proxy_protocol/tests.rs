use proptest::prelude::*;

use tokio::io::AsyncWriteExt as _;

use super::*;

fn forwarded(source: &str, destination: &str) -> Header {
    Header::Forwarded {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn lines() {
    let tcp4 = forwarded("192.0.2.1:56324", "198.51.100.1:443");
    let tcp6 = forwarded("[2001:db8::1]:1", "[2001:db8::2]:65535");
    let wide = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {wide} {wide} 65535 65535\r\n");
    assert_eq!(longest.len(), 107);
    for (line, want) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", tcp4),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", tcp6),
        ("PROXY UNKNOWN\r\n", Header::Local),
        (&longest, Header::Local),
        (
            "PROXY TCP4 0.0.0.0 255.255.255.255 0 0\r\n",
            forwarded("0.0.0.0:0", "255.255.255.255:0"),
        ),
    ] {
        let with_rest = format!("{line}GET / HTTP/1.1\r\n");
        let parsed = parse(with_rest.as_bytes());
        assert_eq!(parsed, Ok(Parsed::Header(want, line.len())), "{line:?}");
        for end in 0..line.len() {
            let parsed = parse(&line.as_bytes()[..end]);
            assert_eq!(parsed, Ok(Parsed::Incomplete), "{:?}", &line[..end]);
        }
    }
}

#[test]
fn no_lines() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY\tTCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY \r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
        "PROXY TCP6 2001:db8::1%eth0 2001:db8::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n\r\n",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert!(parse(endless.as_bytes()).is_err());
}

/// A header as its sender makes it.
fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn binaries() {
    let v6: Vec<u8> = [
        [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    ]
    .concat();
    let v6 = [&v6[..], &[0, 1, 0xff, 0xff]].concat();
    let tcp4 = forwarded("192.0.2.1:56324", "198.51.100.1:443");
    // PP2_TYPE_ALPN with `h2`, and PP2_TYPE_NOOP.
    let tlvs = [&TCP4[..], &[1, 0, 2, b'h', b'2', 4, 0, 0]].concat();
    for (command, family, payload, want) in [
        (0x21, 0x11, &TCP4[..], tcp4),
        (0x21, 0x11, &tlvs, tcp4),
        (
            0x21,
            0x21,
            &v6,
            forwarded("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        ),
        (0x20, 0x00, &[], Header::Local),
        (0x20, 0x11, &TCP4, Header::Local),
        // To be accepted whatever the family, and its payload skipped.
        (0x20, 0xff, b"junk", Header::Local),
        (0x21, 0x00, &[], Header::Local),
        (0x21, 0x00, b"j", Header::Local),
        (0x21, 0x12, &TCP4, Header::Local),
        (0x21, 0x31, &[b'/'; 216], Header::Local),
    ] {
        let header = binary(command, family, payload);
        let with_rest = [&header[..], b"\x16\x03\x01"].concat();
        let parsed = parse(&with_rest);
        assert_eq!(
            parsed,
            Ok(Parsed::Header(want, header.len())),
            "{header:x?}"
        );
        for end in 0..header.len() {
            assert_eq!(
                parse(&header[..end]),
                Ok(Parsed::Incomplete),
                "{header:x?} {end}"
            );
        }
    }
}

#[test]
fn no_binaries() {
    let tlv = |tlv: &[u8]| [&TCP4[..], tlv].concat();
    for (command, family, payload) in [
        (0x11, 0x11, TCP4.to_vec()),
        (0x22, 0x11, TCP4.to_vec()),
        (0x21, 0x13, TCP4.to_vec()),
        (0x21, 0x41, TCP4.to_vec()),
        (0x21, 0x11, TCP4[..11].to_vec()),
        (0x21, 0x21, TCP4.to_vec()),
        (0x21, 0x31, vec![b'/'; 215]),
        (0x21, 0x11, tlv(&[1])),
        (0x21, 0x11, tlv(&[1, 0])),
        (0x21, 0x11, tlv(&[1, 0, 2, b'h'])),
        (0x21, 0x11, tlv(&[TLV_CRC32C, 0, 2, 1, 2])),
        (0x21, 0x11, tlv(&[TLV_CRC32C, 0, 4, 1, 2, 3, 4])),
        (0x21, 0x11, tlv(&[0xee; MOST])),
    ] {
        let header = binary(command, family, &payload);
        assert!(parse(&header).is_err(), "{header:x?}");
    }
    let mut broken = binary(0x21, 0x11, &TCP4);
    broken[11] = b'\r';
    assert_eq!(parse(&broken), Err(Malformed::Missing));
}

#[test]
fn checksums() {
    // RFC 3720, appendix B.4: 32 bytes of zeros, and of ones.
    assert_eq!(crc32c(&[0; 32], 0..0), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32], 0..0), 0x62a8_ab43);
    assert_eq!(crc32c(&[0xff; 32], 0..32), 0x8a91_36aa);
    // A table-driven CRC32C of another language, over the header with zeros in its place.
    let mut header = binary(0x21, 0x11, &[&TCP4[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let at = header.len() - 4;
    header[at..].copy_from_slice(&SUM);
    let want = forwarded("192.0.2.1:56324", "198.51.100.1:443");
    assert_eq!(parse(&header), Ok(Parsed::Header(want, header.len())));
    header[FIXED + 3] ^= 1;
    assert!(parse(&header).is_err());
}

const SUM: [u8; 4] = [0x73, 0x7e, 0xe9, 0x19];

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn what_is_behind_a_header_stays() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec();
    let tlvs = [&TCP4[..], &[4, 8, 0], &[0; 0x800]].concat();
    for header in [line, binary(0x21, 0x11, &TCP4), binary(0x21, 0x11, &tlvs)] {
        for piece in [1, 7, 16, 5000] {
            let (mut client, mut server) = pair().await;
            let sent = [&header[..], b"behind"].concat();
            let sends = tokio::spawn(async move {
                for piece in sent.chunks(piece) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let want = forwarded("192.0.2.1:56324", "198.51.100.1:443");
            assert_eq!(read(&mut server, TIMEOUT).await.unwrap(), want);
            sends.await.unwrap();
            let mut behind = String::new();
            server.read_to_string(&mut behind).await.unwrap();
            assert_eq!(behind, "behind");
        }
    }
}

#[tokio::test]
async fn connections_without_a_header() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let failed = read(&mut server, TIMEOUT).await.unwrap_err();
    assert!(
        matches!(failed, Failed::Malformed(Malformed::Missing)),
        "{failed}"
    );

    let (mut client, mut server) = pair().await;
    client.write_all(b"PROXY TCP4 ").await.unwrap();
    let failed = read(&mut server, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(failed, Failed::Timeout(_)), "{failed}");
    drop(client);
    let failed = read(&mut server, TIMEOUT).await.unwrap_err();
    assert!(matches!(failed, Failed::Io(_)), "{failed}");
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&[&SIGNATURE[..], &bytes].concat());
        let _ = parse(&[b"PROXY TCP4 ", &bytes[..]].concat());
    }

    #[test]
    fn what_is_written_is_read(
        source: (u32, u16),
        destination: (u32, u16),
        v6: (u128, u128),
        rest in proptest::collection::vec(any::<u8>(), 0..20),
        cut in 0_usize..200,
    ) {
        let (s4, d4) = (Ipv4Addr::from(source.0), Ipv4Addr::from(destination.0));
        let (s6, d6) = (Ipv6Addr::from(v6.0), Ipv6Addr::from(v6.1));
        let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        let want = |source_ip: IpAddr, destination_ip: IpAddr| Header::Forwarded {
            source: SocketAddr::new(source_ip, source.1),
            destination: SocketAddr::new(destination_ip, destination.1),
        };
        let line = |family: &str, s: IpAddr, d: IpAddr| {
            format!("PROXY {family} {s} {d} {} {}\r\n", source.1, destination.1).into_bytes()
        };
        let four = [&s4.octets()[..], &d4.octets(), &ports].concat();
        let six = [&s6.octets()[..], &d6.octets(), &ports].concat();
        for (header, want) in [
            (line("TCP4", s4.into(), d4.into()), want(s4.into(), d4.into())),
            (line("TCP6", s6.into(), d6.into()), want(s6.into(), d6.into())),
            (binary(0x21, 0x11, &four), want(s4.into(), d4.into())),
            (binary(0x21, 0x21, &six), want(s6.into(), d6.into())),
        ] {
            let whole = [&header[..], &rest].concat();
            prop_assert_eq!(parse(&whole), Ok(Parsed::Header(want, header.len())));
            let cut = cut.min(header.len() - 1);
            prop_assert_eq!(parse(&header[..cut]), Ok(Parsed::Incomplete));
        }
    }
}
