//! Who answers errors.

mod common;

use std::net::SocketAddr;

use common::{
    Site,
    backend::{Backend, Do},
    body, header, status, upstream,
};

const POST: &str = "POST /path?q=1 HTTP/1.1\r\nHost: site:8080\r\nContent-Length: 4\r\n\
    Cookie: c=d\r\nConnection: close\r\n";

/// A path whose errors another backend answers.
fn with_errors(passed_on: bool, endpoint: SocketAddr, errors: SocketAddr) -> Site {
    let mut site = Site::new(&[endpoint]).with(|settings| {
        settings.errors.intercept = [404, 502, 503].into();
        settings.errors.passed_on = passed_on;
        settings.upstream.next.tries = 1;
    });
    let upstream = upstream("errors", &[errors]);
    site.upstreams.insert("errors".to_owned(), upstream);
    site.errors = Some("errors".to_owned());
    site
}

/// A backend that answers as it is asked to, and one that answers errors.
async fn backends() -> (Backend, Backend) {
    let backend = Backend::new(|got| {
        let wanted = header(got.text, "x-wanted").unwrap_or("200");
        Do::Send(format!(
            "HTTP/1.1 {wanted} X\r\nContent-Length: 6\r\n\r\ntheirs"
        ))
    });
    let errors = Backend::new(|_| {
        Do::Send("HTTP/1.1 418 X\r\nContent-Length: 4\r\nX-Made: yes\r\n\r\nours".to_owned())
    });
    (backend.await, errors.await)
}

fn wanting(status: u16) -> String {
    format!("{POST}Accept: text/html\r\nX-Wanted: {status}\r\n\r\nbody")
}

#[tokio::test]
async fn errors_are_answered_by_another_backend() {
    let (backend, errors) = backends().await;
    let site = with_errors(false, backend.address, errors.address);
    let proxy = site.start().await;
    for (wanted, expected) in [(200, 200), (404, 418), (500, 500), (503, 418)] {
        let answer = proxy.all(wanting(wanted).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{wanted}");
        let from = if expected == 418 { "ours" } else { "theirs" };
        assert_eq!(body(&answer), from);
    }
    let told = &errors.requests()[0];
    assert!(told.starts_with("GET /?q=1 HTTP/1.1\r\n"), "{told}");
    for (name, expected) in [
        ("x-code", Some("404")),
        ("x-format", Some("text/html")),
        ("x-original-uri", Some("/path?q=1")),
        ("x-namespace", Some("default")),
        ("x-ingress-name", Some("site")),
        ("x-service-name", Some("main")),
        ("x-service-port", Some("80")),
        ("host", Some("site:8080")),
        ("content-length", None),
    ] {
        assert_eq!(header(told, name), expected, "{name}");
    }
}

/// Those that the proxy makes too; and only those, where backends' stay as they are.
#[tokio::test]
async fn whose_errors_are_answered() {
    let (backend, errors) = backends().await;
    let nobody = common::nobody().await;
    for passed_on in [false, true] {
        let site = with_errors(passed_on, nobody, errors.address);
        assert_eq!(status(&site.start().await.get("/").await), 418);
        let site = with_errors(passed_on, backend.address, errors.address);
        let found = status(&site.start().await.all(wanting(404).as_bytes()).await);
        assert_eq!(found, if passed_on { 404 } else { 418 });
    }
    // Where that backend is not there, they stay.
    let site = with_errors(false, backend.address, nobody);
    assert_eq!(
        status(&site.start().await.all(wanting(404).as_bytes()).await),
        404
    );
}

/// It is found out before anybody is asked whether the client may ask.
#[tokio::test]
async fn a_body_that_is_too_large_is_an_error_as_others() {
    let (backend, errors) = backends().await;
    let mut site = with_errors(false, backend.address, errors.address);
    site.settings.errors.intercept = [413].into();
    site.change = |forward| (forward.too_large, forward.source_denied) = (true, true);
    let answer = site.start().await.all(wanting(200).as_bytes()).await;
    assert_eq!((status(&answer), body(&answer)), (418, "ours"));
    let told = &errors.requests()[0];
    assert_eq!(header(told, "x-code"), Some("413"));
    assert_eq!(backend.requests().len(), 0);
}
