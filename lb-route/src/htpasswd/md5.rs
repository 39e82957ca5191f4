//! The MD5 crypt of FreeBSD (`$1$`), and Apache's, which differs by its name (`$apr1$`).

use md5::{Digest, Md5};

use super::hash::sixty_four;

/// What follows the salt in the hash of a password: 22 characters. Of the salt 8 bytes count.
pub(super) fn crypt(password: &[u8], name: &str, salt: &[u8]) -> String {
    let mut result = first(password, name, salt);
    for turn in 0..1000 {
        let mut md5 = Md5::new();
        let odd = turn % 2 == 1;
        md5.update(if odd { password } else { &result });
        if turn % 3 != 0 {
            md5.update(salt);
        }
        if turn % 7 != 0 {
            md5.update(password);
        }
        md5.update(if odd { &result } else { password });
        result = md5.finalize().into();
    }
    let byte = |at: usize| u32::from(result[at]);
    let groups = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)];
    let mut out = String::with_capacity(22);
    for (high, middle, low) in groups {
        sixty_four(
            &mut out,
            byte(high) << 16 | byte(middle) << 8 | byte(low),
            4,
        );
    }
    sixty_four(&mut out, byte(11), 2);
    out
}

/// The digest that the thousand turns begin with.
fn first(password: &[u8], name: &str, salt: &[u8]) -> [u8; 16] {
    let other = Md5::new().chain_update(password).chain_update(salt);
    let other: [u8; 16] = other.chain_update(password).finalize().into();
    let md5 = Md5::new().chain_update(password);
    let mut md5 = md5.chain_update(name).chain_update(salt);
    for part in password.chunks(16) {
        md5.update(&other[..part.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // A bit that is set adds a zero, another one the password's first byte.
        md5.update(if bits % 2 == 1 { &[0] } else { &password[..1] });
        bits /= 2;
    }
    md5.finalize().into()
}
