//! The path for the backend, and redirects.

use std::io::Write as _;

use crate::{
    settings::Rewrite,
    variables::{Template, Values},
};

/// Where a request goes after its path was rewritten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// To the backend, with this path and query.
    Path(String),
    /// The client is led elsewhere, 302: the target names a scheme
    /// (`ngx_http_rewrite_module.c`, `ngx_http_rewrite`).
    Elsewhere(String),
}

/// What `rewrite-target` makes of a path. Without it, or where it is the rule's path, nothing
/// changes: the backend gets what the client sent.
pub(crate) fn rewritten(rewrite: &Rewrite, path: &str, values: &impl Values) -> Target {
    let sent = values.head().target();
    let Some(target) = rewrite.target.as_ref().filter(|to| to.text() != path) else {
        return Target::Path(sent.to_owned());
    };
    let filled = target.fill_with(values, |out, value| out.extend_from_slice(value));
    if is_elsewhere(target) {
        let escaped = target.fill_with(values, escape_path);
        let filled = String::from_utf8_lossy(&escaped).into_owned();
        return Target::Elsewhere(with_query(filled, values));
    }
    // A question mark of a group was escaped when it came: it begins no query.
    Target::Path(with_query(escaped_path(&filled), values))
}

/// Whether it leads to another server.
fn is_elsewhere(target: &Template) -> bool {
    let schemes = ["http://", "https://", "$scheme"];
    schemes.iter().any(|s| target.text().starts_with(s))
}

/// Adds the client's query, unless what it is added to ends in `?`, which nginx takes away.
fn with_query(mut target: String, values: &impl Values) -> String {
    if target.ends_with('?') {
        target.pop();
    } else if let Some(query) = values.head().uri.query().filter(|q| !q.is_empty()) {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(query);
    }
    target
}

/// A decoded path as it is sent: with `%XX` for what no path has as it is (nginx's
/// `ngx_escape_uri` with `NGX_ESCAPE_URI`; RFC 3986, section 3.3). It begins with `/`.
pub(crate) fn escaped_path(path: &[u8]) -> String {
    let mut out = Vec::with_capacity(path.len() + 1);
    if !path.starts_with(b"/") {
        out.push(b'/');
    }
    escape_path(&mut out, path);
    // All of it is ASCII now.
    String::from_utf8_lossy(&out).into_owned()
}

fn escape_path(out: &mut Vec<u8>, path: &[u8]) {
    for byte in path {
        match byte {
            b' ' | b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|'
            | b'}' => escape(out, *byte),
            0x21..=0x7e => out.push(*byte),
            _ => escape(out, *byte),
        }
    }
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    // A Vec takes everything.
    let _ = write!(out, "%{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        for (path, expected) in [
            ("/a b", "/a%20b"),
            ("", "/"),
            ("x", "/x"),
            ("/a%2F", "/a%252F"),
            ("/ä", "/%C3%A4"),
            ("/~a;b=c,d:e@f!$&'()*+", "/~a;b=c,d:e@f!$&'()*+"),
            ("/a\r\nb", "/a%0D%0Ab"),
        ] {
            assert_eq!(escaped_path(path.as_bytes()), expected, "{path:?}");
        }
        assert_eq!(escaped_path(b"/\xff"), "/%FF");
    }
}
