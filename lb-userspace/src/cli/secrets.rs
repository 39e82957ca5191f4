//! Takes out of a text what nobody else may see. Pure. Nothing that is written anywhere has
//! secrets on purpose; this is for those that come along in a URL or a message.

/// What stands in a secret's place.
const LEFT_OUT: &str = "(left out)";
/// Shortest token of three parts that counts as one.
const TOKEN: usize = 40;

/// The text without passwords of URLs, bearer tokens and JSON web tokens.
pub(super) fn without(text: &str) -> String {
    let text = replace(text, "://", user);
    let text = replace(&text, "earer ", bearer);
    replace(&text, "eyJ", token)
}

/// Copies a text; after each `mark` goes what `secret` says is to be left out of the rest.
/// That returns bytes to keep (the mark's included), and bytes to leave out.
fn replace(text: &str, mark: &str, secret: fn(&str) -> (usize, usize)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(mark) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (keep, leave) = secret(rest);
        if leave == 0 {
            out.push_str(mark);
            rest = &rest[mark.len()..];
            continue;
        }
        out.push_str(&rest[..keep]);
        out.push_str(LEFT_OUT);
        rest = &rest[keep + leave..];
    }
    out + rest
}

/// Bytes from the beginning on that `is` lets through.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

/// `://USER:PASSWORD@`
fn user(text: &str) -> (usize, usize) {
    let rest = &text[3..];
    let length = run(rest, |c| !c.is_whitespace() && !"/\"'<>?#\\,".contains(c));
    (3, rest[..length].rfind('@').unwrap_or(0))
}

/// `Bearer TOKEN`
fn bearer(text: &str) -> (usize, usize) {
    let rest = &text[6..];
    (
        6,
        run(rest, |c| !c.is_whitespace() && !"\"'\\,".contains(c)),
    )
}

/// `HEADER.CLAIMS.SIGNATURE`, each in base64url; the first begins with `{"`.
fn token(text: &str) -> (usize, usize) {
    let length = run(text, |c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let parts = text[..length].matches('.').count();
    (
        0,
        if parts >= 2 && length >= TOKEN {
            length
        } else {
            0
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_and_nothing_else() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJl";
        let token = format!("token: {jwt}.");
        for (text, left) in [
            ("", ""),
            ("https://10.0.0.1:6443/api", "https://10.0.0.1:6443/api"),
            ("https://10.0.0.1/a@b", "https://10.0.0.1/a@b"),
            (
                "see https://u:p@ss@h:1/x and http://t@h",
                "see https://(left out)@h:1/x and http://(left out)@h",
            ),
            (
                "{\"url\":\"https://u:p@h\"}",
                "{\"url\":\"https://(left out)@h\"}",
            ),
            ("://", "://"),
            (
                "authorization: Bearer abc.def",
                "authorization: Bearer (left out)",
            ),
            ("\"bearer abc\",\"x\"", "\"bearer (left out)\",\"x\""),
            ("the bearer", "the bearer"),
            (&token, "token: (left out)"),
            ("eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJSUzI1NiJ9"),
            ("größe eyJ.a.b", "größe eyJ.a.b"),
        ] {
            assert_eq!(without(text), left, "{text}");
        }
    }
}
