use std::{collections::BTreeSet, sync::Arc};

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::{
    action::Endpoints,
    input::{Name, PortRef},
};

const UPSTREAM: &str = "default-web-80";
/// md5(md5(name) + name), in hexadecimal digits, by Python's hashlib.
const BACKEND: &str = "6cde5721ec2c7e2bce07cff7d0e4ac37";

fn affinity(persistent: bool) -> Affinity {
    Affinity {
        persistent,
        cookie: "INGRESSCOOKIE".to_owned(),
        path: None,
        domain: None,
        expires: None,
        max_age: None,
        same_site: None,
        conditional_same_site_none: false,
        secure: None,
        change_on_failure: false,
    }
}

fn endpoints(count: u8) -> Vec<SocketAddr> {
    let one = |number| SocketAddr::from(([10, 0, 0, number], 8080));
    (1..=count).map(one).collect()
}

fn sticky<'a>(affinity: &'a Affinity, endpoints: &'a [SocketAddr]) -> Sticky<'a> {
    Sticky {
        affinity,
        upstream: UPSTREAM,
        endpoints,
    }
}

fn asker(is_https: bool) -> Asker<'static> {
    Asker {
        path: "/shop",
        is_https,
        user_agent: None,
        // 6 November 1994, 08:49:37: the example of RFC 9110, section 5.6.7.
        now: Duration::from_secs(784_111_777),
    }
}

/// The cookie that a browser sends back.
fn sent(sticky: &Sticky<'_>, key: &str) -> String {
    let set = sticky.cookie(key, &asker(false)).unwrap();
    let set = set.to_str().unwrap();
    let pair = set.split(';').next().unwrap();
    pair.strip_prefix("INGRESSCOOKIE=").unwrap().to_owned()
}

#[test]
fn cookies_of_ingress_nginx_are_understood() {
    // Keys are md5(name + address), by Python's hashlib.
    let mut all = endpoints(2);
    all.push("[2001:db8::1]:80".parse().unwrap());
    let affinity = affinity(true);
    let sticky = sticky(&affinity, &all);
    for (key, endpoint) in [
        ("0aa3b49d3795ad62718deaa56ec75fae", Some(0)),
        ("e3420c7e8e6f123f9dd2657d35a37d78", Some(1)),
        ("4e1728b4c27d5bb22f55465e92c32efe", Some(2)),
        ("4e1728b4c27d5bb22f55465e92c32eff", None),
    ] {
        for cookie in [key.to_owned(), format!("{key}|{BACKEND}")] {
            let bound = sticky.choose(Some(&cookie), &[], 7).unwrap();
            assert_eq!(bound.key.is_none(), endpoint.is_some(), "{cookie}");
            if let Some(endpoint) = endpoint {
                assert_eq!(bound.endpoint, all[endpoint], "{cookie}");
            }
        }
    }
}

#[test]
fn cookies_name_their_upstream() {
    let upstream = |name: &str| Upstream {
        name: name.into(),
        service: Name::new("default", "web"),
        port: PortRef::Number(80),
        endpoints: Endpoints::At(Arc::default()),
        turn: Arc::default(),
    };
    for (cookie, expected) in [
        (format!("key|{BACKEND}"), true),
        (format!("|key||{BACKEND}|more"), true),
        (BACKEND.to_owned(), false),
        (format!("{BACKEND}|"), false),
        ("key".to_owned(), false),
        ("key|other".to_owned(), false),
        (String::new(), false),
        ("|".to_owned(), false),
    ] {
        assert_eq!(
            is_bound_to(&cookie, &upstream(UPSTREAM)),
            expected,
            "{cookie}"
        );
        assert!(
            !is_bound_to(&cookie, &upstream("default-web-81")),
            "{cookie}"
        );
    }
}

/// What follows the value in `Set-Cookie`, with one change of the settings.
fn attributes(is_https: bool, change: fn(&mut Affinity)) -> String {
    let mut affinity = affinity(false);
    change(&mut affinity);
    let cookie = sticky(&affinity, &[])
        .cookie("k", &asker(is_https))
        .unwrap();
    let start = format!("INGRESSCOOKIE=k|{BACKEND}; ");
    let attributes = cookie.to_str().unwrap().strip_prefix(&start);
    attributes.unwrap().to_owned()
}

#[test]
fn cookies_have_the_attributes_of_the_settings() {
    let none: fn(&mut Affinity) = |_| {};
    for (is_https, change, expected) in [
        (false, none, "Path=/shop; HttpOnly"),
        (true, none, "Path=/shop; Secure; HttpOnly"),
        (true, |a| a.secure = Some(false), "Path=/shop; HttpOnly"),
        (
            false,
            |a| a.secure = Some(true),
            "Path=/shop; Secure; HttpOnly",
        ),
        (
            false,
            |a| a.path = Some("/a b".into()),
            "Path=/a b; HttpOnly",
        ),
        (
            false,
            |a| a.domain = Some(String::new()),
            "Path=/shop; HttpOnly",
        ),
        (
            false,
            |a| a.same_site = Some("none".into()),
            "Path=/shop; HttpOnly",
        ),
        (
            false,
            |a| a.same_site = Some("None".into()),
            "Path=/shop; HttpOnly; SameSite=None",
        ),
    ] {
        assert_eq!(attributes(is_https, change), expected);
    }
    let mut broken = affinity(false);
    broken.path = Some("/\r\nX: y".into());
    assert_eq!(sticky(&broken, &[]).cookie("k", &asker(false)), None);
}

#[test]
fn cookies_end_when_the_settings_say_so() {
    let all: fn(&mut Affinity) = |a| {
        (a.expires, a.max_age) = (Some(3600), Some(7200));
        (a.domain, a.same_site) = (Some("a.example".into()), Some("Lax".into()));
    };
    for (change, expected) in [
        (
            all,
            "Expires=Sun, 06 Nov 1994 09:49:37 GMT; Max-Age=7200; Domain=a.example; Path=/shop; HttpOnly; SameSite=Lax",
        ),
        (
            |a| (a.expires, a.max_age) = (Some(-784_111_777), Some(-1)),
            "Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=-1; Path=/shop; HttpOnly",
        ),
        (
            |a| a.expires = Some(i64::MAX),
            "Expires=Fri, 31 Dec 9999 23:59:59 GMT; Path=/shop; HttpOnly",
        ),
        (
            |a| a.expires = Some(i64::MIN),
            "Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/shop; HttpOnly",
        ),
    ] {
        assert_eq!(attributes(false, change), expected);
    }
}

#[test]
fn same_site_none_is_kept_from_browsers_that_refuse_it() {
    let chrome =
        |version: u32| format!("Mozilla/5.0 (X11) Chrome/{version}.0.3112.101 Safari/537.36");
    let apple = |system: &str| format!("Mozilla/5.0 ({system}) Version/12.1 Safari/605.1.15");
    for (user_agent, expected) in [
        (chrome(49), true),
        (chrome(51), true),
        (chrome(60), true),
        (chrome(80), false),
        (apple("iPhone; CPU iPhone OS 12_0 like Mac OS X"), true),
        (apple("iPhone; CPU iPhone OS 13_0 like Mac OS X"), false),
        (apple("iPad; CPU OS 12_2 like Mac OS X"), true),
        (apple("Macintosh; Intel Mac OS X 10_14_5"), true),
        (apple("Macintosh; Intel Mac OS X 10_15_0"), false),
        (
            apple("Macintosh; Intel Mac OS X 10_14_5) Chrome/80.0 ("),
            false,
        ),
        ("curl/8".to_owned(), false),
    ] {
        assert_eq!(refuses_none(&user_agent), expected, "{user_agent}");
    }
}

#[test]
fn same_site_depends_on_the_browser_only_if_it_is_none_and_conditional() {
    let old = Some("Chrome/51.0");
    for (value, conditional, user_agent, expected) in [
        ("None", true, old, None),
        ("None", true, Some("Chrome/80.0"), Some("None")),
        ("None", true, None, Some("None")),
        ("None", false, old, Some("None")),
        ("Lax", true, old, Some("Lax")),
        ("Strict", true, old, Some("Strict")),
    ] {
        let affinity = Affinity {
            same_site: Some(value.to_owned()),
            conditional_same_site_none: conditional,
            ..affinity(false)
        };
        let same_site = sticky(&affinity, &[])
            .same_site(user_agent)
            .map(str::to_owned);
        assert_eq!(same_site.as_deref(), expected, "{value} {user_agent:?}");
    }
}

#[test]
fn failed_endpoints_are_left_only_if_that_is_asked_for() {
    let all = endpoints(3);
    for persistent in [false, true] {
        let mut affinity = affinity(persistent);
        let first = sticky(&affinity, &all).choose(None, &[], 1).unwrap();
        let cookie = sent(&sticky(&affinity, &all), &first.key.unwrap());
        let failed = [first.endpoint];
        let again = sticky(&affinity, &all).choose(Some(&cookie), &failed, 2);
        assert_eq!(
            again,
            Some(Bound {
                endpoint: first.endpoint,
                key: None
            })
        );
        affinity.change_on_failure = true;
        let other = sticky(&affinity, &all)
            .choose(Some(&cookie), &failed, 2)
            .unwrap();
        assert!(other.endpoint != first.endpoint && other.key.is_some());
        assert_eq!(sticky(&affinity, &all).choose(Some(&cookie), &all, 3), None);
    }
}

#[test]
fn new_clients_are_spread() {
    // 3000 clients on 3 endpoints: 1000 each, with a standard deviation of 26.
    let all = endpoints(3);
    for persistent in [false, true] {
        let affinity = affinity(persistent);
        let mut found = [0; 3];
        for number in 0..3000 {
            let bound = sticky(&affinity, &all)
                .choose(None, &[], mixed(number))
                .unwrap();
            found[all.iter().position(|e| *e == bound.endpoint).unwrap()] += 1;
        }
        assert!(
            found.iter().all(|count| (870..=1130).contains(count)),
            "{found:?}"
        );
    }
}

proptest! {
    #[test]
    fn a_cookie_leads_back_to_its_endpoint(persistent: bool, count in 1_u8..20, random: u64, other: u64) {
        let (affinity, all) = (affinity(persistent), endpoints(count));
        let sticky = sticky(&affinity, &all);
        let first = sticky.choose(None, &[], random).unwrap();
        let cookie = sent(&sticky, first.key.as_ref().unwrap());
        let again = sticky.choose(Some(&cookie), &[], other).unwrap();
        prop_assert_eq!(again, Bound { endpoint: first.endpoint, key: None });
    }

    #[test]
    fn a_persistent_binding_ends_with_its_endpoint_only(
        kept in subsequence(endpoints(12), 1..12), random: u64,
    ) {
        let (affinity, all) = (affinity(true), endpoints(12));
        let first = sticky(&affinity, &all).choose(None, &[], random).unwrap();
        let cookie = sent(&sticky(&affinity, &all), first.key.as_ref().unwrap());
        let again = sticky(&affinity, &kept).choose(Some(&cookie), &[], random).unwrap();
        prop_assert!(kept.contains(&again.endpoint));
        let stays = kept.contains(&first.endpoint);
        prop_assert_eq!(again.endpoint == first.endpoint, stays);
        prop_assert_eq!(again.key.is_none(), stays);
    }

    #[test]
    fn a_client_that_is_bound_anew_gets_no_endpoint_that_failed(
        persistent: bool, failed in subsequence(endpoints(12), 0..=12), random: u64,
    ) {
        let (affinity, all) = (affinity(persistent), endpoints(12));
        let bound = sticky(&affinity, &all).choose(None, &failed, random);
        prop_assert_eq!(bound.is_some(), failed.len() < all.len());
        if let Some(bound) = bound {
            prop_assert!(!failed.contains(&bound.endpoint) && bound.key.is_some());
        }
    }

    #[test]
    fn any_cookie_is_read(persistent: bool, cookie in "[a-f0-9|é]{0,40}", random: u64) {
        let (affinity, all) = (affinity(persistent), endpoints(3));
        let bound = sticky(&affinity, &all).choose(Some(&cookie), &[], random).unwrap();
        prop_assert!(all.iter().collect::<BTreeSet<_>>().contains(&bound.endpoint));
        prop_assert_eq!(sticky(&affinity, &[]).choose(Some(&cookie), &[], random), None);
    }
}
