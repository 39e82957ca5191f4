//! Values of headers of ConfigMaps. Expected values are what `ngx_http_script_compile` and
//! `proxy_set_header` of nginx make of them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use lb_route::{
    context::{self, Context},
    globals::Globals,
    headers::Value,
    request::{Client, Head},
};

/// What a value is for `GET /a?b=c` of `h.example`; `None` for nothing.
fn filled(value: &[u8]) -> Result<Option<HeaderValue>, String> {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("h.example:8080"));
    let odd = HeaderValue::from_bytes(b"\xe4").expect("it is a value");
    headers.insert(HeaderName::from_static("x-odd"), odd);
    let uri = Uri::from_static("/a?b=c");
    let head = Head {
        method: &Method::GET,
        uri: &uri,
        version: Version::HTTP_11,
        headers: &headers,
    };
    let client = Client {
        address: ([192, 0, 2, 1], 40_000).into(),
        port: 80,
        tls: None,
        random: 0,
        request_id: "id".to_owned(),
    };
    let asked = context::asked(&Globals::default(), &head, &client);
    let context = Context {
        head,
        client: &client,
        asked: &asked,
        location: None,
        groups: &[],
    };
    Ok(Value::parse(value)?.fill(&context))
}

#[test]
fn values_have_variables() {
    let cases: &[(&[u8], Option<&[u8]>)] = &[
        (b"plain", Some(b"plain")),
        (b"$request_method $request_uri", Some(b"GET /a?b=c")),
        (b"${host}s", Some(b"h.examples")),
        (b"$arg_b-$remote_addr", Some(b"c-192.0.2.1")),
        (b"$req_id", Some(b"id")),
        (b"5 $", Some(b"5 $")),
        (b"\xe4 $", Some(b"\xe4 $")),
        (b"", None),
        (b"$http_x_none", None),
        (b"$upstream_addr", None),
    ];
    for (value, expected) in cases {
        let text = String::from_utf8_lossy(value);
        let found = filled(value).expect(&text);
        assert_eq!(
            found.as_ref().map(HeaderValue::as_bytes),
            *expected,
            "{text}"
        );
    }
    // It is no text: its bytes are replaced, and it is a value all the same.
    assert!(filled(b"$http_x_odd").expect("it is one").is_some());
}

#[test]
fn values_that_are_none() {
    for (value, expected) in [
        ("$nothing", "there is no variable $nothing"),
        ("a\nb", "it is no value of a header"),
        ("a\0", "it is no value of a header"),
    ] {
        let why = filled(value.as_bytes()).expect_err(value);
        assert_eq!(why, expected);
    }
}
