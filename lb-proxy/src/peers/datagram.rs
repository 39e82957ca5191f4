//! What proxies tell each other, as bytes.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `BSL`, and 1, the version |
//! | 1 | 0 if that is who sends it, and 1 if it is another, which has ended |
//! | 8 | the [`Life`] of the proxy whose counts these are |
//! | 18, and 24 for each key | an Ingress: its [`ZoneId`] (8), the window (8), the number of keys (2); and of each the [`KeyId`] (16), requests in the window (4), and in the one before (4) |
//! | … | more Ingresses, or the same with another window |
//! | 32 | with a key: HMAC-SHA-256 (RFC 2104, FIPS 180-4) of all of that |
//!
//! Numbers begin with their highest byte. There is no number of the datagram, and no time: to hear
//! one again changes nothing, and what is older than a window is left out ([`lb_route::overall`]).

use aws_lc_rs::hmac;
use lb_route::overall::{KeyId, Life, Told, ZoneId};

/// Bytes of a datagram at most: with its headers it fits into what every IPv6 path carries (1280).
pub const LONGEST: usize = 1_200;

const MAGIC: [u8; 4] = *b"BSL\x01";
const GROUP: usize = 18;
const ENTRY: usize = 24;
const TAG: usize = 32;

/// Whose counts are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// Those of who tells it.
    Sender(Life),
    /// Those of another, which has ended.
    Another(Life),
}

impl Of {
    /// Of whom.
    pub fn life(self) -> Life {
        match self {
            Self::Sender(life) | Self::Another(life) => life,
        }
    }
}

/// Why a datagram counts for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Who sent it has not the key.
    Forged,
    /// It is none.
    Malformed,
}

/// Seals datagrams, where proxies have a key.
pub struct Seal(Option<hmac::Key>);

impl Seal {
    /// With a key, perhaps.
    pub fn new(key: Option<&[u8]>) -> Self {
        Self(key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// Whether there is a key.
    pub fn is_keyed(&self) -> bool {
        self.0.is_some()
    }

    /// The datagrams that tell something: one at least.
    pub fn write(&self, whose: Of, mut told: Vec<Told>) -> Vec<Vec<u8>> {
        told.sort_unstable();
        let room = LONGEST - if self.is_keyed() { TAG } else { 0 };
        let mut all = vec![head(whose)];
        // Of the group that is being written: what it is of, and where its number of keys is.
        let mut group: Option<((ZoneId, u64), usize)> = None;
        for told in told {
            let of = (told.zone, told.window);
            let mut open = group.filter(|(known, _)| *known == of).map(|(_, at)| at);
            let needed = ENTRY + if open.is_some() { 0 } else { GROUP };
            // There is one from the beginning.
            if all.last().is_none_or(|last| last.len() + needed > room) {
                all.push(head(whose));
                open = None;
            }
            let Some(last) = all.last_mut() else { break };
            let at = open.unwrap_or_else(|| open_group(last, of));
            group = Some((of, at));
            let count = u16::from_be_bytes([last[at], last[at + 1]]) + 1;
            last[at..at + 2].copy_from_slice(&count.to_be_bytes());
            last.extend(told.key.0);
            last.extend(told.now.to_be_bytes());
            last.extend(told.before.to_be_bytes());
        }
        if let Some(key) = &self.0 {
            for datagram in &mut all {
                let tag = hmac::sign(key, datagram);
                datagram.extend(tag.as_ref());
            }
        }
        all
    }

    /// Reads one: whose counts they are, and what it tells.
    ///
    /// # Errors
    /// It counts for nothing.
    pub fn read(&self, datagram: &[u8]) -> Result<(Of, Vec<Told>), Refused> {
        let datagram = match &self.0 {
            Some(key) => verified(key, datagram).ok_or(Refused::Forged)?,
            None => datagram,
        };
        parse(datagram).ok_or(Refused::Malformed)
    }
}

fn head(whose: Of) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(LONGEST);
    datagram.extend(MAGIC);
    datagram.push(u8::from(matches!(whose, Of::Another(_))));
    datagram.extend(whose.life().0.to_be_bytes());
    datagram
}

/// Begins a group without keys; where their number is.
fn open_group(datagram: &mut Vec<u8>, (zone, window): (ZoneId, u64)) -> usize {
    datagram.extend(zone.0.to_be_bytes());
    datagram.extend(window.to_be_bytes());
    let at = datagram.len();
    datagram.extend([0, 0]);
    at
}

fn verified<'d>(key: &hmac::Key, datagram: &'d [u8]) -> Option<&'d [u8]> {
    let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG)?)?;
    hmac::verify(key, signed, tag).ok().map(|()| signed)
}

fn parse(datagram: &[u8]) -> Option<(Of, Vec<Told>)> {
    let mut rest = datagram.strip_prefix(&MAGIC)?;
    let of = match take(&mut rest)? {
        [0] => Of::Sender,
        [1] => Of::Another,
        _ => return None,
    };
    let whose = of(Life(u64::from_be_bytes(take(&mut rest)?)));
    let mut all = Vec::with_capacity(rest.len() / ENTRY);
    while !rest.is_empty() {
        let zone = ZoneId(u64::from_be_bytes(take(&mut rest)?));
        let window = u64::from_be_bytes(take(&mut rest)?);
        for _ in 0..u16::from_be_bytes(take(&mut rest)?) {
            all.push(Told {
                zone,
                window,
                key: KeyId(take(&mut rest)?),
                now: u32::from_be_bytes(take(&mut rest)?),
                before: u32::from_be_bytes(take(&mut rest)?),
            });
        }
    }
    Some((whose, all))
}

/// Takes bytes from the beginning of others.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIFE: Of = Of::Sender(Life(0x0102_0304_0506_0708));

    fn told(zone: u64, window: u64, key: u8, now: u32) -> Told {
        Told {
            zone: ZoneId(zone),
            window,
            key: KeyId([key; 16]),
            now,
            before: 2,
        }
    }

    /// By the table at the head of this file.
    #[test]
    fn bytes_are_as_they_are_said_to_be() {
        let all = vec![
            told(9, 7, 0xbb, 3),
            told(9, 7, 0xaa, 1),
            told(9, 8, 0xaa, 4),
        ];
        let mut expected = b"BSL\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08".to_vec();
        let group = |window, count| {
            [
                0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, window, 0, count,
            ]
        };
        expected.extend(group(7, 2));
        expected.extend([0xaa; 16].iter().chain(&[0, 0, 0, 1, 0, 0, 0, 2]));
        expected.extend([0xbb; 16].iter().chain(&[0, 0, 0, 3, 0, 0, 0, 2]));
        expected.extend(group(8, 1));
        expected.extend([0xaa; 16].iter().chain(&[0, 0, 0, 4, 0, 0, 0, 2]));
        let seal = Seal::new(None);
        assert_eq!(seal.write(LIFE, all.clone()), [&*expected]);
        expected[4] = 1;
        let another = Of::Another(LIFE.life());
        assert_eq!(seal.write(another, all), [&*expected]);
        assert_eq!(seal.read(&expected).unwrap().0, another);
        expected[4] = 2;
        assert_eq!(seal.read(&expected), Err(Refused::Malformed));
    }

    /// Test case 2 of RFC 4231: the tag is HMAC-SHA-256 of all that is before it.
    #[test]
    fn the_tag_is_that_of_the_standard() {
        let signed = b"what do ya want for nothing?";
        let tag = [
            0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95,
            0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9,
            0x64, 0xec, 0x38, 0x43,
        ];
        let Seal(key) = Seal::new(Some(b"Jefe"));
        let datagram = [&signed[..], &tag].concat();
        assert_eq!(verified(&key.unwrap(), &datagram), Some(&signed[..]));
    }

    #[test]
    fn who_has_not_the_key_is_not_heard() {
        let seal = Seal::new(Some(b"a key of the proxies"));
        let [datagram] = &seal.write(LIFE, vec![told(1, 2, 3, 4)])[..] else {
            panic!("one datagram");
        };
        assert_eq!(seal.read(datagram), Ok((LIFE, vec![told(1, 2, 3, 4)])));
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert_eq!(seal.read(&changed), Err(Refused::Forged), "{at}");
            assert_eq!(seal.read(&datagram[..at]), Err(Refused::Forged), "{at}");
        }
        let other = Seal::new(Some(b"another key of proxies"));
        assert_eq!(other.read(datagram), Err(Refused::Forged));
        assert_eq!(Seal::new(None).read(datagram), Err(Refused::Malformed));
        let plain = &Seal::new(None).write(LIFE, vec![told(1, 2, 3, 4)])[0];
        assert_eq!(seal.read(plain), Err(Refused::Forged));
    }

    #[test]
    fn a_greeting_tells_nothing() {
        for seal in [Seal::new(None), Seal::new(Some(b"key"))] {
            let [datagram] = &seal.write(LIFE, Vec::new())[..] else {
                panic!("one datagram");
            };
            assert_eq!(seal.read(datagram), Ok((LIFE, Vec::new())));
        }
    }

    fn any_told() -> impl Strategy<Value = Told> {
        let key = any::<[u8; 16]>();
        let counts = (any::<u32>(), any::<u32>());
        (0_u64..3, 0_u64..3, key, counts).prop_map(|(zone, window, key, (now, before))| Told {
            zone: ZoneId(zone),
            window,
            key: KeyId(key),
            now,
            before,
        })
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard(
            mut told in proptest::collection::vec(any_told(), 0..400),
            is_keyed in any::<bool>(),
        ) {
            let seal = Seal::new(is_keyed.then_some(b"key"));
            let datagrams = seal.write(LIFE, told.clone());
            prop_assert!(datagrams.iter().all(|datagram| datagram.len() <= LONGEST));
            // No more of them than have to be: each has room for 46 keys of one Ingress.
            prop_assert!(datagrams.len() <= told.len() / 40 + 1);
            let mut heard = Vec::new();
            for datagram in &datagrams {
                let (life, all) = seal.read(datagram).unwrap();
                prop_assert_eq!(life, LIFE);
                heard.extend(all);
            }
            told.sort_unstable();
            prop_assert_eq!(heard, told);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Seal::new(None).read(&bytes);
            let _ = Seal::new(None).read(&[&MAGIC[..], &bytes].concat());
            prop_assert!(Seal::new(Some(b"key")).read(&bytes).is_err());
        }
    }
}
