//! Users and passwords of basic authentication.

mod des;
mod hash;
mod md5;

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderValue;

use hash::Hash;

/// As nginx decodes it: with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Microseconds from which a check is slow.
const SLOW: u64 = 500;

/// Users, and the hash of each one's password: bcrypt (`$2y$`, `$2a$`, `$2b$`), MD5-crypt
/// (`$apr1$`, `$1$`), SHA-crypt (`$5$`, `$6$`), traditional crypt, `{SHA}`, `{SSHA}` and `{PLAIN}`,
/// as nginx checks them (`ngx_http_auth_basic_module`, `ngx_crypt`).
///
/// ```
/// use lb_route::htpasswd::Users;
/// let (users, problems) = Users::from_file(b"# people\nme:{PLAIN}secret\nyou\n");
/// assert!(users.check("me", b"secret") && !users.check("you", b""));
/// assert_eq!(problems[0].to_string(), "line 3: it has no colon; write USER:HASH");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Users {
    hashes: HashMap<String, Hash>,
    /// The hash that takes longest: it is checked for users that there are none of, so that the
    /// time does not tell which there are.
    slowest: Option<Hash>,
}

/// An entry that does not count. It names no password and no hash.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {trouble}")]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What is wrong.
    pub trouble: Trouble,
}

/// Where an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a line of a file, the first of which is 1.
    Line(usize),
    /// Under a key of a Secret.
    Key(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

/// What is wrong with an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    /// There is no colon in the line.
    #[error("it has no colon; write USER:HASH")]
    Colon,
    /// There is nothing before the colon.
    #[error("it has no user; write USER:HASH")]
    User,
    /// It is not UTF-8.
    #[error("it is not UTF-8; write it anew with htpasswd")]
    Text,
    /// The user has an entry already.
    #[error("its user has an entry further up, which counts; remove one of them")]
    Twice,
    /// No hash that is known begins or looks like this.
    #[error("its hash is of no known kind; make one with htpasswd -B")]
    Unknown,
    /// A check would take seconds.
    #[error(
        "its hash takes too long to check; make one of at most cost 17 (bcrypt) or 1000000 rounds"
    )]
    Costly,
}

impl Users {
    /// From a file of htpasswd: `USER:HASH`, and perhaps a colon and more, in each line; lines
    /// that begin with `#`, and empty ones, are comments. Entries that do not count, and why.
    pub fn from_file(file: &[u8]) -> (Self, Vec<Problem>) {
        let lines = file.split(|b| *b == b'\n').zip(1..);
        let lines = lines.filter(|(line, _)| !matches!(line.first(), None | Some(b'#' | b'\r')));
        Self::new(lines.map(|(line, number)| {
            let line = std::str::from_utf8(line).map_err(|_| Trouble::Text);
            let entry = line.and_then(|line| line.split_once(':').ok_or(Trouble::Colon));
            (Place::Line(number), entry)
        }))
    }

    /// From a Secret whose keys are the users, and whose values are the hashes
    /// (`auth-secret-type: auth-map`).
    pub fn from_map<'a>(
        map: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> (Self, Vec<Problem>) {
        Self::new(map.into_iter().map(|(user, hash)| {
            let hash = hash.split(|b| *b == b'\n').next().unwrap_or_default();
            let hash = std::str::from_utf8(hash).map_err(|_| Trouble::Text);
            (Place::Key(user.to_owned()), hash.map(|hash| (user, hash)))
        }))
    }

    fn new<'a>(
        entries: impl Iterator<Item = (Place, Result<(&'a str, &'a str), Trouble>)>,
    ) -> (Self, Vec<Problem>) {
        let (mut users, mut problems) = (Self::default(), Vec::new());
        // The first entry of a user counts, even if nobody can sign in by it.
        let mut seen = HashSet::new();
        for (place, entry) in entries {
            let added = entry.and_then(|(user, hash)| match user {
                "" => Err(Trouble::User),
                user if !seen.insert(user) => Err(Trouble::Twice),
                user => users.add(user, hash),
            });
            if let Err(trouble) = added {
                problems.push(Problem { place, trouble });
            }
        }
        (users, problems)
    }

    fn add(&mut self, user: &str, hash: &str) -> Result<(), Trouble> {
        let end = hash.find([':', '\r']).unwrap_or(hash.len());
        let hash: Hash = hash[..end].parse()?;
        let slowest = self.slowest.as_ref().map_or(0, Hash::cost);
        if hash.cost() > slowest {
            self.slowest = Some(hash.clone());
        }
        self.hashes.insert(user.to_owned(), hash);
        Ok(())
    }

    /// Whether there is a user with a password. It takes up to seconds where [`Users::is_slow`]
    /// says so: never ask on a thread that serves others. A user that there is none of takes as
    /// long as the slowest that there is.
    pub fn check(&self, user: &str, password: &[u8]) -> bool {
        match (self.hashes.get(user), &self.slowest) {
            (Some(hash), _) => hash.is_of(password),
            (None, Some(other)) => {
                std::hint::black_box(other.is_of(password));
                false
            }
            (None, None) => false,
        }
    }

    /// Whether [`Users::check`] takes half a millisecond or more for a user, as bcrypt and
    /// SHA-crypt do.
    pub fn is_slow(&self, user: &str) -> bool {
        let hash = self.hashes.get(user).or(self.slowest.as_ref());
        hash.is_some_and(|hash| hash.cost() >= SLOW)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none: nobody can sign in.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// User and password of `Authorization: Basic` (RFC 7617, section 2); `None` for what is another
/// scheme, or malformed. The charset of passwords is the client's, that of users has to be UTF-8.
pub fn credentials(authorization: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, token) = authorization.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut user = BASE64.decode(token.trim_ascii()).ok()?;
    let colon = user.iter().position(|b| *b == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    let user = String::from_utf8(user).ok()?;
    (!user.is_empty()).then_some((user, password))
}

#[cfg(test)]
mod tests;
