//! Which endpoint a request goes to.

mod common;

use std::sync::Arc;

use common::{
    Site,
    backend::{Backend, Do, ok},
    body, header, status,
};
use lb_route::{
    action::{Endpoints, Upstream},
    settings::{Affinity, Balance},
    variables::Template,
};

/// Backends that answer with their numbers.
async fn numbered(count: usize) -> Vec<Backend> {
    let mut all = Vec::new();
    for number in 0..count {
        all.push(Backend::new(move |_| Do::Send(ok(&number.to_string()))).await);
    }
    all.sort_by_key(|backend| backend.address);
    all
}

fn site(backends: &[Backend]) -> Site {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    Site::new(&addresses)
}

#[tokio::test]
async fn one_after_the_other() {
    let backends = numbered(3).await;
    let proxy = site(&backends).start().await;
    for _ in 0..9 {
        proxy.get("/").await;
    }
    assert!(backends.iter().all(|backend| backend.requests().len() == 3));
}

#[tokio::test]
async fn a_value_has_an_endpoint() {
    let backends = numbered(3).await;
    let mut site = site(&backends).with(|settings| {
        settings.upstream.balance = Balance::Hash {
            key: Template::parse("$request_uri").unwrap(),
            subset: None,
        };
    });
    site.change = |forward| forward.hash = Some(forward.target.clone());
    let proxy = site.start().await;
    let mut found = std::collections::BTreeSet::new();
    for path in 0..30 {
        let path = format!("/{path}");
        let first = body(&proxy.get(&path).await).to_owned();
        assert_eq!(body(&proxy.get(&path).await), first);
        found.insert(first);
    }
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn the_faster_one_gets_more() {
    let fast = Backend::plain().await;
    let slow = Backend::new(|_| {
        Do::Slowly(
            vec![String::new(), ok("")],
            std::time::Duration::from_millis(20),
        )
    })
    .await;
    let mut all = [fast.address, slow.address];
    all.sort_unstable();
    let site = Site::new(&all).with(|settings| settings.upstream.balance = Balance::Ewma);
    let proxy = site.start().await;
    for _ in 0..50 {
        proxy.get("/").await;
    }
    let (fast, slow) = (fast.requests().len(), slow.requests().len());
    assert!(fast > 3 * slow && slow > 0, "{fast} {slow}");
}

#[tokio::test]
async fn a_cookie_binds_a_client() {
    let backends = numbered(3).await;
    let mut site = site(&backends).with(|settings| {
        settings.affinity = Some(Affinity {
            persistent: true,
            cookie: "INGRESSCOOKIE".to_owned(),
            path: None,
            domain: None,
            expires: None,
            max_age: None,
            same_site: None,
            conditional_same_site_none: false,
            secure: None,
            change_on_failure: false,
        });
    });
    site.change = |forward| {
        let cookie = forward.target.strip_prefix("/?");
        forward.cookie = cookie.map(str::to_owned);
    };
    let proxy = site.start().await;
    let first = proxy.get("/").await;
    let cookie = header(&first, "set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly");
    let value = pair.strip_prefix("INGRESSCOOKIE=").unwrap();
    for _ in 0..6 {
        let answer = proxy.get(&format!("/?{value}")).await;
        assert_eq!(body(&answer), body(&first));
        assert_eq!(header(&answer, "set-cookie"), None);
    }
    let anew = proxy.get("/?other").await;
    assert!(header(&anew, "set-cookie").is_some());
}

#[tokio::test]
async fn a_name_is_resolved() {
    let backend = Backend::plain().await;
    for (name, expected) in [("localhost", 200), ("no..name", 503)] {
        let mut site = Site::new(&[]);
        let named = Upstream {
            endpoints: Endpoints::Named(name.into(), backend.address.port()),
            ..Upstream::clone(&site.upstreams["main"])
        };
        site.upstreams.insert("main".to_owned(), Arc::new(named));
        let proxy = site.start().await;
        assert_eq!(status(&proxy.get("/").await), expected, "{name}");
    }
}
