//! Who may ask.

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use common::{
    Site,
    backend::{Backend, Do, ok},
    body, header, status,
};
use lb_route::{
    htpasswd::Users,
    input::Name,
    settings::{AuthCache, BasicAuth, ExternalAuth, Limits, Settings},
    variables::Template,
};

fn external(address: SocketAddr) -> ExternalAuth {
    ExternalAuth {
        url: Template::parse(&format!("http://{address}/auth?h=$host&m=$request_method")).unwrap(),
        host: "auth.example".to_owned(),
        method: None,
        signin: None,
        signin_redirect_param: "rd".to_owned(),
        response_headers: vec!["x-user".parse().unwrap(), "x-none".parse().unwrap()],
        request_redirect: None,
        always_set_cookie: false,
        proxy_set_headers: None,
        cache: None,
    }
}

fn with_external(settings: &mut Settings, auth: ExternalAuth) {
    settings.access.external = Some(Arc::new(auth));
}

/// Answers with the status that the request's `X-Wanted` has.
async fn asked() -> Backend {
    Backend::new(|got| {
        let wanted = header(got.text, "x-wanted").unwrap_or("200");
        Do::Send(format!(
            "HTTP/1.1 {wanted} X\r\nContent-Length: 4\r\nX-User: ann\r\nSet-Cookie: a=1\r\n\
             Set-Cookie: b=2\r\nWWW-Authenticate: Basic realm=x\r\nX-Other: 1\r\n\r\nauth"
        ))
    })
    .await
}

const POST: &str = "POST /path?q=1 HTTP/1.1\r\nHost: site:8080\r\nContent-Length: 4\r\n\
    X-User: forged\r\nX-None: forged\r\nX-Forwarded-Proto: https\r\nCookie: c=d\r\nConnection: close\r\n";

#[tokio::test]
async fn another_server_lets_a_client_in() {
    let (backend, auth) = (Backend::plain().await, asked().await);
    let site = Site::new(&[backend.address])
        .with(|settings| with_external(settings, external(auth.address)));
    let proxy = site.start().await;
    let answer = proxy.all(format!("{POST}\r\nbody").as_bytes()).await;
    assert_eq!((status(&answer), body(&answer)), (200, "/path?q=1"));
    assert_eq!(answer.matches("set-cookie: ").count(), 2);
    assert_eq!(header(&answer, "x-other"), None);
    let sent = &backend.requests()[0];
    assert_eq!(header(sent, "x-user"), Some("ann"));
    assert_eq!(header(sent, "x-none"), None);
    assert_eq!(body(sent), "body");
    let question = &auth.requests()[0];
    assert!(
        question.starts_with("GET /auth?h=site&m=POST HTTP/1.1\r\n"),
        "{question}"
    );
    let id = header(question, "x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    for (name, expected) in [
        ("host", Some("auth.example")),
        ("x-original-url", Some("http://site:8080/path?q=1")),
        ("x-original-method", Some("POST")),
        ("x-sent-from", Some("nginx-ingress-controller")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-auth-request-redirect", Some("/path?q=1")),
        ("cookie", Some("c=d")),
        ("x-forwarded-proto", None),
        ("content-length", None),
        ("x-original-uri", None),
        ("x-scheme", None),
    ] {
        assert_eq!(header(question, name), expected, "{name}");
    }
    // Its connection is kept.
    proxy.get("/").await;
    assert_eq!(auth.connections.get(), 1);
}

#[tokio::test]
async fn what_another_server_has_said_is_kept() {
    let backend = Backend::plain().await;
    let auth = Backend::new(|got| {
        let wanted = header(got.text, "x-wanted").unwrap_or("200");
        let user = header(got.text, "authorization").unwrap_or("nobody");
        Do::Send(format!(
            "HTTP/1.1 {wanted} X\r\nContent-Length: 0\r\nX-User: {user}\r\n\r\n"
        ))
    })
    .await;
    let minute = Duration::from_secs(60);
    let external = ExternalAuth {
        cache: Some(AuthCache {
            key: Template::parse("$http_authorization").unwrap(),
            times: vec![(vec![200], minute), (vec![401], minute)],
        }),
        ..external(auth.address)
    };
    let site = Site::new(&[backend.address]).with(|settings| with_external(settings, external));
    let proxy = site.start().await;
    // Who asks, what the server would say, what it says, and how often it was asked.
    let cases = [
        ("ann", 200, 200, 1),
        ("ann", 401, 200, 1),
        ("bob", 401, 401, 2),
        ("bob", 200, 401, 2),
        ("ann", 403, 200, 2),
        ("eve", 403, 403, 3),
        ("eve", 200, 200, 4),
        // Those who say nothing of who they are are not one.
        ("", 200, 200, 5),
        ("", 401, 401, 6),
    ];
    for (user, wanted, expected, asked) in cases {
        let authorization = match user {
            "" => String::new(),
            user => format!("Authorization: {user}\r\n"),
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: site\r\nX-Wanted: {wanted}\r\n{authorization}Connection: close\r\n\r\n"
        );
        let answer = proxy.all(request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{user} {wanted}");
        assert_eq!(auth.requests().len(), asked, "{user} {wanted}");
        if expected == 200 && !user.is_empty() {
            let requests = backend.requests();
            let last = requests.last().expect("it was asked");
            assert_eq!(header(last, "x-user"), Some(user));
        }
    }
}

#[tokio::test]
async fn another_server_keeps_a_client_out() {
    let (backend, auth) = (Backend::plain().await, asked().await);
    let settings = |change: fn(&mut ExternalAuth)| {
        let mut external = external(auth.address);
        change(&mut external);
        Site::new(&[backend.address]).with(|settings| with_external(settings, external))
    };
    let plain = settings(|_| {}).start().await;
    let always = settings(|auth| auth.always_set_cookie = true).start().await;
    for (wanted, expected) in [(401, 401), (403, 403), (404, 500), (500, 500), (302, 500)] {
        let request = format!("{POST}X-Wanted: {wanted}\r\n\r\nbody");
        let answer = plain.all(request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{wanted}");
        assert!(!answer.contains("set-cookie"));
        let challenge = header(&answer, "www-authenticate");
        assert_eq!(challenge.is_some(), wanted == 401);
        let answer = always.all(request.as_bytes()).await;
        let cookies = answer.matches("set-cookie: ").count();
        assert_eq!(cookies, if expected == 500 { 0 } else { 2 }, "{wanted}");
    }
    let signin = |url: &'static str| {
        let mut external = external(auth.address);
        external.signin = Some(Template::parse(url).unwrap());
        Site::new(&[backend.address]).with(|settings| with_external(settings, external))
    };
    for (url, expected) in [
        (
            "http://in.example/",
            "http://in.example/?rd=http://site:8080%2Fpath%3Fq%3D1",
        ),
        (
            "http://in.example/?x=y",
            "http://in.example/?x=y&rd=http://site:8080%2Fpath%3Fq%3D1",
        ),
        ("http://in.example/?rd=/home", "http://in.example/?rd=/home"),
        (
            "https://$host/in?rd=$escaped_request_uri",
            "https://site/in?rd=%2Fpath%3Fq%3D1",
        ),
    ] {
        let proxy = signin(url).start().await;
        let answer = proxy
            .all(format!("{POST}X-Wanted: 401\r\n\r\nbody").as_bytes())
            .await;
        assert_eq!(
            (status(&answer), header(&answer, "location")),
            (302, Some(expected))
        );
        assert_eq!(answer.matches("set-cookie: ").count(), 2);
    }
    assert_eq!(backend.requests(), [""; 0]);
}

#[tokio::test]
async fn a_server_that_is_not_there_keeps_all_out() {
    let backend = Backend::plain().await;
    let nobody = common::nobody().await;
    let site =
        Site::new(&[backend.address]).with(|settings| with_external(settings, external(nobody)));
    let proxy = site.start().await;
    assert_eq!(status(&proxy.get("/").await), 500);
    assert_eq!(backend.requests(), [""; 0]);
}

#[tokio::test]
async fn passwords() {
    let backend = Backend::plain().await;
    let mut site = Site::new(&[backend.address]).with(|settings| {
        settings.access.basic = Some(BasicAuth {
            secret: Name::new("default", "users"),
            map: false,
            realm: "a \"b\"".to_owned(),
        });
    });
    site.change = |forward| {
        // `htpasswd -nbs ann secret`, `htpasswd -nbB -C 8 bob secret`.
        let file = b"ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
            bob:$2y$08$o10hoGcufzp/db8vOk2YUu9wXAu8WTtp9rA1FPsklITZib9yLvucS\n";
        let (users, _) = Users::from_file(file);
        Arc::make_mut(&mut forward.location).users = Some(Arc::new(users));
    };
    let proxy = site.start().await;
    // `echo -n ann:secret | base64`
    for (sent, expected) in [
        ("", 401),
        ("Authorization: Basic YW5uOnNlY3JldA==\r\n", 200),
        ("Authorization: basic YW5uOnNlY3JldA==\r\n", 200),
        ("Authorization: Basic YW5uOndyb25n\r\n", 401),
        ("Authorization: Basic Ym9iOnNlY3JldA==\r\n", 200),
        ("Authorization: Basic Ym9iOndyb25n\r\n", 401),
        ("Authorization: Basic ZXZlOnNlY3JldA==\r\n", 401),
        ("Authorization: Bearer YW5uOnNlY3JldA==\r\n", 401),
        ("Authorization: Basic !\r\n", 401),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{sent}\r\n");
        let answer = proxy.all(request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{sent}");
        let challenge = header(&answer, "www-authenticate");
        let wanted = (expected == 401).then_some("Basic realm=\"a \\\"b\\\"\"");
        assert_eq!(challenge, wanted, "{sent}");
    }
}

#[tokio::test]
async fn addresses_and_any_of_several() {
    let (backend, auth) = (Backend::plain().await, asked().await);
    // Denied, satisfy any, what the other server says, status.
    for (denied, any, wanted, expected) in [
        (false, false, 200, 200),
        (true, false, 200, 403),
        (false, false, 401, 401),
        (true, true, 200, 200),
        (true, true, 401, 401),
        (false, true, 401, 200),
    ] {
        let mut site = Site::new(&[backend.address]).with(|settings| {
            with_external(settings, external(auth.address));
            settings.access.any = any;
            settings.access.allow = vec!["127.0.0.0/8".parse().unwrap()];
        });
        if denied {
            site.change = |forward| forward.source_denied = true;
        }
        let proxy = site.start().await;
        let request = format!("{POST}X-Wanted: {wanted}\r\n\r\nbody");
        let found = status(&proxy.all(request.as_bytes()).await);
        assert_eq!(found, expected, "{denied} {any} {wanted}");
    }
}

#[tokio::test]
async fn requests_that_come_too_fast() {
    let backend = Backend::plain().await;
    let site = Site::new(&[backend.address]).with(|settings| {
        settings.limits = Limits {
            rpm: Some(1),
            burst_multiplier: 3,
            ..Limits::default()
        };
    });
    let proxy = site.start().await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(status(&proxy.get("/").await));
    }
    assert_eq!(statuses, [200, 200, 200, 200, 503, 503]);
}

#[tokio::test]
async fn requests_at_once() {
    let backend = Backend::new(|got| match got.text.contains("/slow") {
        true => Do::Slowly(
            vec![String::new(), ok("")],
            std::time::Duration::from_millis(400),
        ),
        false => Do::Send(ok("")),
    })
    .await;
    let site = Site::new(&[backend.address]).with(|settings| {
        settings.limits.connections = Some(1);
    });
    let proxy = site
        .start_with(|options| options.connections_status = http::StatusCode::TOO_MANY_REQUESTS)
        .await;
    let mut slow = proxy.connect().await;
    slow.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while backend.requests().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(status(&proxy.get("/").await), 429);
    assert_eq!(status(&slow.answer().await), 200);
    assert_eq!(status(&proxy.get("/").await), 200);
}
