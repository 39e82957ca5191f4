use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use proptest::prelude::*;

use super::*;

/// A request, of whose named variables some have values.
struct Fake {
    uri: Uri,
    headers: HeaderMap,
    groups: Vec<Vec<u8>>,
}

impl Values for Fake {
    fn head(&self) -> Head<'_> {
        Head {
            method: &Method::GET,
            uri: &self.uri,
            version: Version::HTTP_11,
            headers: &self.headers,
        }
    }

    fn group(&self, number: u8) -> &[u8] {
        let group = self.groups.get(usize::from(number));
        group.map_or(&[], Vec::as_slice)
    }

    fn named(&self, name: Named) -> Option<Cow<'_, str>> {
        match name {
            Named::Host => Some("shop.example".into()),
            Named::RequestUri => Some("/a?b=1".into()),
            Named::Scheme => Some("https".into()),
            Named::Https => Some("".into()),
            _ => None,
        }
    }
}

fn fake(headers: &[(HeaderName, &[u8])]) -> Fake {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    Fake {
        uri: Uri::from_static("/a?one=1&two=2%20&one=3"),
        headers: map,
        groups: vec![b"/x/y".to_vec(), b"x".to_vec(), b"y".to_vec()],
    }
}

fn filled(text: &str) -> String {
    let user_agent = HeaderName::from_static("user-agent");
    let headers: &[(HeaderName, &[u8])] = &[
        (user_agent, b"curl/8"),
        (header::COOKIE, b"a=b; Two_Words=2"),
    ];
    Template::parse(text).unwrap().fill(&fake(headers))
}

#[test]
fn variables_are_filled_in() {
    for (text, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("$host", "shop.example"),
        ("https://$host$request_uri", "https://shop.example/a?b=1"),
        ("${scheme}s://${host}x", "httpss://shop.examplex"),
        ("$host.$scheme-$host", "shop.example.https-shop.example"),
        ("$Host${REQUEST_URI}", "shop.example/a?b=1"),
        ("$http_user_agent", "curl/8"),
        ("$HTTP_User_Agent", "curl/8"),
        ("[$http_x_other]", "[]"),
        ("$cookie_a-$cookie_two_words", "b-2"),
        ("[$cookie_c]", "[]"),
        ("$arg_one,$arg_TWO,$arg_three.", "1,2%20,."),
        ("[$https$remote_user]", "[]"),
        ("é$host é", "éshop.example é"),
    ] {
        assert_eq!(filled(text), expected, "{text}");
    }
}

#[test]
fn groups_have_one_digit() {
    for (text, expected) in [
        ("/$1", "/x"),
        ("/$2/$1", "/y/x"),
        ("/$12", "/x2"),
        ("/$1$2", "/xy"),
        ("/$1a", "/xa"),
        ("/${1}2", "/x2"),
        ("/$9", "/"),
    ] {
        assert_eq!(filled(text), expected, "{text}");
    }
}

#[test]
fn a_dollar_that_no_name_follows_is_one() {
    for (text, expected) in [
        ("$", "$"),
        ("a$", "a$"),
        ("$$", "$$"),
        ("$$host", "$shop.example"),
        ("$-$host", "$-shop.example"),
        ("^/a$|^/b$", "^/a$|^/b$"),
        ("$é", "$é"),
    ] {
        assert_eq!(filled(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_variable_is_named() {
    for (text, name) in [
        ("$nothing", "nothing"),
        ("a $Nothing b", "Nothing"),
        ("$hosts", "hosts"),
        ("$host_", "host_"),
        ("${host_name}", "host_name"),
        ("$0", "0"),
        ("${0}", "0"),
        ("${10}", "10"),
        ("$http_", "http_"),
        ("$cookie_", "cookie_"),
        ("$arg_", "arg_"),
        ("$_", "_"),
        ("${host", "{host"),
        ("${}", "{"),
        ("${", "{"),
        ("${host-x}", "{host"),
        ("${http_x-y}", "{http_x"),
    ] {
        let unknown = Template::parse(text).unwrap_err();
        assert_eq!(unknown, Unknown(name.to_owned()), "{text}");
    }
}

#[test]
fn each_named_variable_is_read_by_its_name() {
    for (name, named) in NAMED {
        let template = Template::parse(&format!("${name}")).unwrap();
        assert_eq!(template.parts, [Part::Variable(Variable::Named(*named))]);
        assert_eq!(template.text(), format!("${name}"));
    }
}

#[test]
fn logs_are_escaped() {
    let x = HeaderName::from_static("x-a");
    // Bytes as ngx_http_log_escape and ngx_escape_json have them (nginx 1.27).
    for (value, default, json) in [
        (&b"plain ~!"[..], "plain ~!", "plain ~!"),
        (b"q\"b\\", r"q\x22b\x5C", r#"q\"b\\"#),
        (b"a\tb", r"a\x09b", r"a\tb"),
        (b"\xc3\xa9", r"\xC3\xA9", "é"),
        (b"\xe9", r"\xE9", "\u{fffd}"),
        (b"", "", ""),
    ] {
        let values = fake(&[(x.clone(), value)]);
        let line = Template::parse("<\"$http_x_a\" é>").unwrap();
        let lossy = String::from_utf8_lossy(value);
        for (escape, expected) in [
            (Escape::Default, default),
            (Escape::Json, json),
            (Escape::None, &lossy),
        ] {
            let written = line.log_line(&values, escape);
            assert_eq!(written, format!("<\"{expected}\" é>"), "{value:?}");
        }
    }
    // Neither a header nor a path can have these.
    let mut out = String::new();
    escape_default(&mut out, b"\x00\n\r\x1f\x7f\x80\xff");
    assert_eq!(out, r"\x00\x0A\x0D\x1F\x7F\x80\xFF");
    out.clear();
    escape_json(&mut out, "\u{0}\u{8}\u{c}\n\r\u{1f}\u{7f}/");
    assert_eq!(out, "\\u0000\\b\\f\\n\\r\\u001F\u{7f}/");
    out.clear();
    escape_none(&mut out, "\u{0}\n\r\t\u{1f}\u{7f}\"\\é");
    assert_eq!(out, "\\x00\\x0A\\x0D\t\\x1F\\x7F\"\\é");
}

#[test]
fn what_has_no_value_is_a_dash_in_logs() {
    let line = Template::parse("$http_x $arg_x $cookie_x $status $https.").unwrap();
    for (escape, expected) in [
        (Escape::Default, "- - - - ."),
        (Escape::Json, "    ."),
        (Escape::None, "    ."),
    ] {
        assert_eq!(line.log_line(&fake(&[]), escape), expected);
    }
    assert_eq!(line.fill(&fake(&[])), "    .");
}

#[test]
fn addresses_are_escaped_as_components() {
    // RFC 3986, section 2.3: what is not reserved stays.
    for (text, expected) in [
        ("", ""),
        ("azAZ09-_.~", "azAZ09-_.~"),
        ("https://a/b?c=d&e", "https%3A%2F%2Fa%2Fb%3Fc%3Dd%26e"),
        ("a b+%", "a%20b%2B%25"),
        ("é\n", "%C3%A9%0A"),
    ] {
        assert_eq!(escaped(text), expected);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[$ {}a-z_0-9é]{0,20}") {
        if let Ok(template) = Template::parse(&text) {
            let line = template.log_line(&fake(&[]), Escape::None);
            // Without a name there is nothing to fill in.
            if !text.contains(|c: char| c.is_ascii_alphanumeric()) {
                prop_assert_eq!(line, text);
            }
        }
    }

    #[test]
    fn no_value_ends_a_line_or_a_string(value: Vec<u8>) {
        let mut out = String::new();
        escape_default(&mut out, &value);
        prop_assert!(out.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"'));
        out.clear();
        escape_json(&mut out, &String::from_utf8_lossy(&value));
        prop_assert!(!out.contains(|c: char| c < ' '));
        let quotes = out.replace(r"\\", "").replace(r#"\""#, "");
        prop_assert!(!quotes.contains('"'));
        out.clear();
        escape_none(&mut out, &String::from_utf8_lossy(&value));
        prop_assert!(!out.contains(['\n', '\r', '\x1b']));
    }
}
