//! Hashes of passwords.

use std::{fmt, str::FromStr};

use base64::{
    Engine as _, alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::{BASE64, Trouble, des, md5};

/// Of crypt(3): each character is 6 bits.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The base 64 of bcrypt: the last bits of a text may be anything.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    NO_PAD.with_decode_allow_trailing_bits(true),
);
/// The longest password that is looked at: htpasswd takes one byte less, and longer ones would
/// make SHA-crypt take as long as a client likes.
const PASSWORD: usize = 256;
/// The greatest cost of bcrypt: htpasswd's. It takes seconds.
const COST: u32 = 17;
/// The most rounds of SHA-crypt: they take about a second.
const ROUNDS: u32 = 1_000_000;
/// Rounds of SHA-crypt, if none are given.
const ROUNDS_DEFAULT: u32 = 5_000;

/// A hash, by its kind.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Hash {
    /// `$2y$`, `$2a$`, `$2b$`: cost, salt, and what follows.
    Bcrypt(u32, [u8; 16], [u8; 23]),
    /// `$5$`, `$6$`; with its rounds.
    Sha(String, u32),
    /// `$apr1$`, `$1$`: name, salt, and what follows.
    Md5(&'static str, String, String),
    /// Traditional: salt and result.
    Des(u16, u64),
    /// `{SHA}`, `{SSHA}`: digest and salt.
    Sha1([u8; 20], Vec<u8>),
    /// `{PLAIN}`.
    Plain(String),
}

/// Its kind only: what it is must not get into a log.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bcrypt(..) => "bcrypt",
            Self::Sha(..) => "SHA-crypt",
            Self::Md5(..) => "MD5-crypt",
            Self::Des(..) => "DES-crypt",
            Self::Sha1(..) => "SHA-1",
            Self::Plain(_) => "plain",
        })
    }
}

impl FromStr for Hash {
    type Err = Trouble;

    /// By how it begins, as nginx's `ngx_crypt` and the crypt(3) behind it.
    fn from_str(text: &str) -> Result<Self, Trouble> {
        if let Some(plain) = text.strip_prefix("{PLAIN}") {
            return Ok(Self::Plain(plain.to_owned()));
        }
        if let Some(digest) = text.strip_prefix("{SHA}") {
            return sha1(digest)
                .filter(|(_, salt)| salt.is_empty())
                .map_or(Err(Trouble::Unknown), |(digest, salt)| {
                    Ok(Self::Sha1(digest, salt))
                });
        }
        if let Some(digest) = text.strip_prefix("{SSHA}") {
            let (digest, salt) = sha1(digest).ok_or(Trouble::Unknown)?;
            return Ok(Self::Sha1(digest, salt));
        }
        match text.strip_prefix('$').and_then(|rest| rest.split_once('$')) {
            Some(("apr1", rest)) => md5("$apr1$", rest),
            Some(("1", rest)) => md5("$1$", rest),
            Some(("5", rest)) => sha(text, rest, 43),
            Some(("6", rest)) => sha(text, rest, 86),
            Some(("2a" | "2b" | "2y", _)) => bcrypt(text),
            Some(_) => Err(Trouble::Unknown),
            None => traditional(text),
        }
    }
}

impl Hash {
    /// Whether it is that of a password. The comparison takes as long for any.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        // crypt(3) would stop at a NUL byte, and RFC 7617 (section 2) knows none.
        if password.len() > PASSWORD || password.contains(&0) {
            return false;
        }
        match self {
            Self::Bcrypt(cost, salt, hash) => {
                // A NUL byte ends a password, and of all 72 bytes count.
                let mut key = password.to_vec();
                key.push(0);
                key.truncate(72);
                bcrypt::bcrypt(*cost, *salt, &key)[..23].ct_eq(hash).into()
            }
            Self::Sha(hash, _) => ShaCrypt::SHA512
                .verify_password(password, hash.as_str())
                .is_ok(),
            Self::Md5(name, salt, hash) => {
                let own = md5::crypt(password, name, salt.as_bytes());
                own.as_bytes().ct_eq(hash.as_bytes()).into()
            }
            Self::Des(salt, hash) => des::crypt(password, *salt).ct_eq(hash).into(),
            Self::Sha1(digest, salt) => {
                let own = Sha1::new().chain_update(password).chain_update(salt);
                own.finalize()[..].ct_eq(digest).into()
            }
            Self::Plain(plain) => password.ct_eq(plain.as_bytes()).into(),
        }
    }

    /// About how many microseconds a check takes: for comparisons with one another.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Bcrypt(cost, ..) => 50 << cost,
            Self::Sha(_, rounds) => u64::from(*rounds),
            Self::Md5(..) => 200,
            Self::Des(..) => 100,
            Self::Sha1(..) | Self::Plain(_) => 1,
        }
    }
}

/// Appends the lowest `count` times 6 bits of a number, the lowest first.
pub(super) fn sixty_four(out: &mut String, mut number: u32, count: usize) {
    for _ in 0..count {
        out.push(char::from(ALPHABET[number as usize & 63]));
        number >>= 6;
    }
}

/// Whether a text has a length, and only characters of crypt(3).
fn is_crypt(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| ALPHABET.contains(&b))
}

fn sha1(encoded: &str) -> Option<([u8; 20], Vec<u8>)> {
    let all = BASE64.decode(encoded).ok()?;
    let (digest, salt) = all.split_first_chunk::<20>()?;
    Some((*digest, salt.to_vec()))
}

fn md5(name: &'static str, rest: &str) -> Result<Hash, Trouble> {
    let (salt, hash) = rest.split_once('$').ok_or(Trouble::Unknown)?;
    let fits = salt.len() <= 8 && is_crypt(hash, 22);
    fits.then(|| Hash::Md5(name, salt.to_owned(), hash.to_owned()))
        .ok_or(Trouble::Unknown)
}

fn sha(text: &str, rest: &str, len: usize) -> Result<Hash, Trouble> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or(Trouble::Unknown)?;
            (rounds.parse().map_err(|_| Trouble::Unknown)?, rest)
        }
        None => (ROUNDS_DEFAULT, rest),
    };
    let (salt, hash) = rest.split_once('$').ok_or(Trouble::Unknown)?;
    // What is longer, or of fewer rounds, crypt(3) never writes.
    if salt.len() > 16 || rounds < 1000 || !is_crypt(hash, len) {
        return Err(Trouble::Unknown);
    }
    if rounds > ROUNDS {
        return Err(Trouble::Costly);
    }
    Ok(Hash::Sha(text.to_owned(), rounds))
}

fn bcrypt(text: &str) -> Result<Hash, Trouble> {
    // `$2y$05$`, 22 characters of salt, 31 of hash.
    let cost = text.get(4..6).filter(|_| text.get(6..7) == Some("$"));
    let cost = cost.and_then(|cost| cost.parse().ok());
    let decoded = |from: usize, to: usize| BCRYPT.decode(text.get(from..to)?).ok();
    let salt = decoded(7, 29).and_then(|salt| salt.try_into().ok());
    let hash = decoded(29, 60).and_then(|hash| hash.try_into().ok());
    match (cost, salt, hash) {
        _ if text.len() != 60 => Err(Trouble::Unknown),
        (Some(cost), Some(_), Some(_)) if cost > COST => Err(Trouble::Costly),
        (Some(cost @ 4..), Some(salt), Some(hash)) => Ok(Hash::Bcrypt(cost, salt, hash)),
        _ => Err(Trouble::Unknown),
    }
}

/// Two characters of salt, and 64 bits in eleven, the highest first.
fn traditional(text: &str) -> Result<Hash, Trouble> {
    if !is_crypt(text, 13) {
        return Err(Trouble::Unknown);
    }
    let mut digits = text.bytes().map(|byte| {
        let at = ALPHABET.iter().position(|b| *b == byte);
        // It is in the alphabet, as was seen above.
        at.unwrap_or_default() as u16
    });
    let mut digit = || digits.next().unwrap_or_default();
    let salt = digit() | digit() << 6;
    let bits = (0..10).fold(0, |bits, _| bits << 6 | u64::from(digit()));
    // Of the last character four bits are the result's, and two are zero.
    let last = u64::from(digit());
    if last & 3 != 0 {
        return Err(Trouble::Unknown);
    }
    Ok(Hash::Des(salt, bits << 4 | last >> 2))
}
