use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lb_proxy::tls::{SecretError, certificates::Facts};
use lb_route::{input::Name, trouble};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{
    html::{ROWS, page},
    *,
};
use crate::{
    change::{Kind, ObjectKey},
    proxy::{
        access_log::{AccessLog, Writer},
        metrics::Identity,
        testing::{ingress, put_service, set, shop},
    },
};

/// What a proxy of the shop and a few more tells, at 2021-03-04T05:06:07Z.
fn told() -> Status {
    let (ready, is_ready) = watch::channel(true);
    let log = AccessLog::new(Writer::start(io::sink()).unwrap(), String::new());
    let identity = Identity {
        namespace: String::new(),
        class: String::new(),
        pod: String::new(),
    };
    let state = State::new(identity, log, is_ready);
    let mut compiler = shop();
    let odd = ingress(
        "denied",
        "denied.example",
        &[("/", "web")],
        &[("auth-type", "digest")],
    );
    compiler.put_ingress(Arc::new(odd));
    let alias = ingress(
        "alias",
        "a.example",
        &[("/x", "api")],
        &[("server-alias", "b.example")],
    );
    compiler.put_ingress(Arc::new(alias));
    set(&mut compiler, &[("ssl-redirect", "false")]);
    put_service(&mut compiler, "api", &[]);
    state.take(&Arc::new(compiler.compile()));
    let key = |name: &str| ObjectKey {
        kind: Kind::Ingress,
        namespace: "default".into(),
        name: name.into(),
    };
    let trouble = |severity, message: &str| trouble::Trouble {
        reason: "UnsupportedAnnotation",
        severity,
        message: message.to_owned(),
    };
    state.set_troubles(vec![
        (key("shop"), trouble(Severity::Note, "it is so")),
        (key("shop"), trouble(Severity::Denied, "it is <b>bad</b>")),
        (key("alias"), trouble(Severity::Denied, "it is bad")),
    ]);
    state.set_source("ingresses", Some("the API server is away"));
    let now = UNIX_EPOCH + Duration::from_secs(1_614_834_367);
    let status = Status::of(&state, now);
    drop(ready);
    status
}

fn json(status: &Status) -> serde_json::Value {
    serde_json::from_str(&status.json()).unwrap()
}

#[test]
fn hosts_and_their_paths_are_told() {
    let found = json(&told());
    let path = |path: &str, backend: &str, endpoints: usize| {
        json!({
            "path": path, "kind": "Prefix", "ingress": "default/shop", "backend": backend,
            "endpoints": endpoints, "canary": null, "denied": null,
        })
    };
    let mut root = path("/", "default/web:80", 1);
    root["canary"] = "default-beta-80".into();
    let hosts = found["hosts"].as_array().unwrap();
    let names: Vec<_> = hosts
        .iter()
        .map(|host| host["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "_",
            "a.example",
            "b.example",
            "denied.example",
            "shop.example"
        ]
    );
    assert_eq!(
        hosts[4]["paths"],
        json!([path("/api", "default/api:80", 0), root])
    );
    assert_eq!(hosts[4]["note"], serde_json::Value::Null);
    assert_eq!(hosts[2]["note"], "another name of a.example");
    assert_eq!(hosts[2]["paths"], json!([]));
    let denied = hosts[3]["paths"][0]["denied"].as_str();
    assert!(
        denied.is_some_and(|denied| !denied.is_empty()),
        "{}",
        hosts[3]
    );
}

#[test]
fn the_rest_is_told() {
    let found = json(&told());
    assert_eq!(found["ready"], true);
    assert_eq!(found["table"], 1);
    assert!(found["since"].as_str().unwrap().ends_with('Z'));
    let upstreams = found["upstreams"].as_array().unwrap();
    let expected = json!({
        "name": "default-web-80", "backend": "default/web:80", "endpoints": ["192.0.2.1:8080"],
        "dns": null,
    });
    assert_eq!(upstreams[2], expected);
    let troubles = found["troubles"].as_array().unwrap();
    let order: Vec<_> = troubles
        .iter()
        .map(|row| (&row["severity"], &row["object"]))
        .collect();
    let expected = [
        ("denied", "Ingress default/alias"),
        ("denied", "Ingress default/shop"),
        ("note", "Ingress default/shop"),
    ];
    let expected = expected.map(|(severity, object)| (json!(severity), json!(object)));
    assert_eq!(
        order,
        expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );
    assert_eq!(found["sources"][0]["place"], "ingresses");
}

#[test]
fn a_certificate_is_told_by_the_days_that_it_has_left() {
    let facts = |seconds: i64| Facts {
        names: vec!["a.example".to_owned()],
        subject: "CN=a.example".to_owned(),
        issuer: "CN=ca".to_owned(),
        serial: "7".to_owned(),
        not_before: 0,
        not_after: 1_614_834_367 + seconds,
    };
    let row = |facts| state::CertificateRow {
        host: "a.example".to_owned(),
        secret: Some(Name::new("default", "tls")),
        facts,
        not_covered: false,
    };
    for (seconds, state, days) in [
        (21 * DAY, "good", 21),
        (21 * DAY - 1, "soon", 20),
        (0, "soon", 0),
        (-1, "expired", -1),
        (-DAY, "expired", -1),
    ] {
        let found = CertificateRow::of(&row(Ok(facts(seconds))), 1_614_834_367);
        assert_eq!((found.state, found.days), (state, Some(days)), "{seconds}");
    }
    let found = CertificateRow::of(&row(Ok(facts(0))), 0);
    assert_eq!(found.not_after.as_deref(), Some("2021-03-04T05:06:07Z"));
    let other = state::CertificateRow {
        not_covered: true,
        ..row(Ok(facts(30 * DAY)))
    };
    assert_eq!(CertificateRow::of(&other, 0).state, "other");
    let broken = CertificateRow::of(&row(Err(SecretError::NoKey)), 0);
    assert_eq!((broken.state, broken.days), ("broken", None));
    assert!(
        broken
            .error
            .is_some_and(|error| error.contains("private key"))
    );
}

/// The page without its style and its head.
fn body(status: &Status) -> String {
    let page = page(status);
    let (_, body) = page.split_once("<body>").unwrap();
    body.to_owned()
}

#[test]
fn the_page_shows_what_is_told() {
    let html = body(&told());
    for part in [
        "<span class=\"state good\">serves</span>",
        "<b>3</b> troubles",
        "<b>1</b> upstreams without an endpoint",
        "<code>shop.example</code>",
        "<i>every host</i>",
        "<td data-column=\"Path\"><code>/api</code></td>",
        "<td data-column=\"Backend\">default/web:80<br><small>canary default-beta-80</small></td>",
        "<td data-column=\"Endpoints\"><span class=\"state bad\">0</span></td>",
        "it is &lt;b&gt;bad&lt;/b&gt;",
        "<b>ingresses</b> cannot be read: the API server is away.",
        "192.0.2.1:8080",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let nothing = body(&Status::default());
    assert!(nothing.contains("<span class=\"state bad\">does not serve</span>"));
    assert_eq!(nothing.matches("<p class=\"none\">None.</p>").count(), 4);
}

#[test]
fn the_policy_allows_the_style_and_nothing_else() {
    let answer = answer(&told());
    let header = |wanted: &str| {
        let mut headers = answer.headers.iter();
        headers
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.as_str())
    };
    // CSP 3, section 6.7.3.3: the sum is of the content of the element.
    let (_, style) = answer.body.split_once("<style>").unwrap();
    let (style, _) = style.split_once("</style>").unwrap();
    let sum = STANDARD.encode(Sha256::digest(style));
    let policy = header("content-security-policy").unwrap();
    let begin = format!("default-src 'none'; style-src 'sha256-{sum}'; ");
    assert!(policy.starts_with(&begin), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.content_type, "text/html; charset=utf-8");
    for word in [
        "<script", "style=", "http://", "https://", "onclick", "<img", "@import", "url(",
    ] {
        assert!(!answer.body.contains(word), "{word}");
    }
}

#[test]
fn many_rows_are_cut() {
    let row = |number: usize| HostRow {
        name: format!("h{number}.example"),
        note: None,
        paths: Vec::new(),
    };
    let status = Status {
        hosts: (0..ROWS + 2).map(row).collect(),
        ..Status::default()
    };
    let html = body(&status);
    assert_eq!(html.matches("<code>h").count(), ROWS);
    assert!(html.contains("And 2 more"), "{html}");
    let paths = told().hosts[4].paths.clone();
    let wide = HostRow {
        paths: paths.iter().cycle().take(3 * ROWS).cloned().collect(),
        ..row(0)
    };
    let status = Status {
        hosts: vec![wide.clone(), wide],
        ..Status::default()
    };
    let html = body(&status);
    assert_eq!(html.matches("data-column=\"Path\"").count(), 4 * ROWS);
    assert!(html.contains(&format!("{} more", 2 * ROWS)));
}

/// A status with a text wherever there can be one.
fn filled(text: &str) -> Status {
    let some = || Some(text.to_owned());
    let text = || text.to_owned();
    Status {
        troubles: vec![TroubleRow {
            object: text(),
            severity: "note",
            reason: "A",
            message: text(),
        }],
        sources: vec![SourceRow {
            place: text(),
            message: text(),
        }],
        certificates: vec![CertificateRow {
            host: text(),
            secret: some(),
            state: "broken",
            days: None,
            not_after: some(),
            names: vec![text()],
            issuer: some(),
            error: some(),
        }],
        hosts: vec![HostRow {
            name: text(),
            note: some(),
            paths: vec![PathRow {
                path: text(),
                kind: "Exact",
                ingress: text(),
                backend: text(),
                endpoints: None,
                canary: some(),
                denied: some(),
            }],
        }],
        upstreams: [None, some()]
            .map(|dns| UpstreamRow {
                name: text(),
                backend: text(),
                endpoints: vec![text()],
                dns,
            })
            .into(),
        ..Status::default()
    }
}

/// What stands between `<` and `>`, and quotes outside of that.
fn tags(html: &str) -> Vec<&str> {
    let tags = html.split('<').skip(1);
    tags.map(|tag| tag.split_once('>').map_or(tag, |(tag, _)| tag))
        .collect()
}

#[test]
fn text_is_text() {
    let html = body(&filled(
        "<script>alert('1')</script>&amp;\" onload=\"x\u{202e}",
    ));
    assert!(
        !html.contains("<script") && !html.contains("\" onload"),
        "{html}"
    );
    assert!(!html.contains('\u{202e}'));
    let shown =
        "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;amp;&quot; onload=&quot;x\u{fffd}";
    assert_eq!(html.matches(shown).count(), 23, "{html}");
}

proptest! {
    #[test]
    fn no_text_makes_a_tag(text in "([<>&\"'/= a-z]|\u{202e}|\n|é){1,30}") {
        let plain = body(&filled("plain"));
        let html = body(&filled(&text));
        prop_assert_eq!(tags(&html), tags(&plain));
        prop_assert_eq!(html.matches('"').count(), plain.matches('"').count());
    }
}
