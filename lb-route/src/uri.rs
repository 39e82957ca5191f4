//! Paths of requests as rules are compared with them.

/// Why a path is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// It does not begin with `/`.
    #[error("it does not begin with /")]
    Relative,
    /// A `%` without two hexadecimal digits behind it.
    #[error("a % without two hexadecimal digits")]
    Escape,
    /// A byte that no path has: NUL, escaped or not.
    #[error("a NUL byte")]
    Nul,
    /// `..` leads out of the root.
    #[error(".. leads out of the root")]
    Above,
}

/// A path, without its query, as nginx compares it: escapes are decoded, `//` is `/`, and `.` and
/// `..` are followed, those that were escaped too (`ngx_http_parse_complex_uri`; RFC 3986, sections
/// 2.1 and 5.2.4). What is forwarded is another matter.
///
/// # Errors
/// The request is malformed: it is answered 400.
///
/// ```
/// assert_eq!(lb_route::uri::normal("/a//b/../%63").as_deref(), Ok(&b"/a/c"[..]));
/// ```
pub fn normal(path: &str) -> Result<Vec<u8>, Malformed> {
    if !path.starts_with('/') {
        return Err(Malformed::Relative);
    }
    let decoded = decoded(path.as_bytes())?;
    let mut segments: Vec<&[u8]> = Vec::new();
    // What follows the last slash decides whether there is one at the end.
    let mut ends_in_slash = true;
    for segment in decoded[1..].split(|b| *b == b'/') {
        ends_in_slash = false;
        match segment {
            b"" | b"." => ends_in_slash = true,
            b".." => {
                segments.pop().ok_or(Malformed::Above)?;
                ends_in_slash = true;
            }
            name => segments.push(name),
        }
    }
    let mut normal = Vec::with_capacity(decoded.len());
    for segment in &segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if ends_in_slash || normal.is_empty() {
        normal.push(b'/');
    }
    Ok(normal)
}

fn decoded(path: &[u8]) -> Result<Vec<u8>, Malformed> {
    let digit = |at: usize| {
        let digit = path.get(at).and_then(|b| char::from(*b).to_digit(16));
        digit.ok_or(Malformed::Escape)
    };
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let (byte, len) = match path[at] {
            b'%' => ((digit(at + 1)? * 16 + digit(at + 2)?) as u8, 3),
            byte => (byte, 1),
        };
        if byte == 0 {
            return Err(Malformed::Nul);
        }
        out.push(byte);
        at += len;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_followed() {
        for (path, expected) in [
            ("/", "/"),
            ("/foo", "/foo"),
            ("/foo/", "/foo/"),
            ("//", "/"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/../../c/", "/c/"),
            ("/%66oo", "/foo"),
            ("/a%2Fb", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%20b", "/a b"),
            ("/%25", "/%"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            let normal = normal(path).map(|p| String::from_utf8(p).unwrap());
            assert_eq!(normal.as_deref(), Ok(expected), "{path}");
        }
        // Bytes that are no UTF-8 stay.
        assert_eq!(normal("/%ff"), Ok(b"/\xff".to_vec()));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (path, why) in [
            ("", Malformed::Relative),
            ("foo", Malformed::Relative),
            ("*", Malformed::Relative),
            ("/%", Malformed::Escape),
            ("/%4", Malformed::Escape),
            ("/%zz", Malformed::Escape),
            ("/%00", Malformed::Nul),
            ("/..", Malformed::Above),
            ("/a/../..", Malformed::Above),
            ("/%2e%2e", Malformed::Above),
            ("/a/..%2f..", Malformed::Above),
        ] {
            assert_eq!(normal(path), Err(why), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_normal_path_stays_as_it_is(path in "/[a-z./%0-9]{0,20}") {
            let Ok(once) = normal(&path) else { return Ok(()) };
            proptest::prop_assert_eq!(once.first(), Some(&b'/'));
            // A `%` that was escaped would be one again.
            let text = String::from_utf8(once.clone()).ok();
            if let Some(text) = text.filter(|text| !text.contains('%')) {
                proptest::prop_assert_eq!(normal(&text), Ok(once));
            }
        }
    }
}
