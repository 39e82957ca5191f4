//! How long what the server of `auth-url` says is kept.

mod common;

use std::time::Duration;

use common::{read, read_with};
use http::StatusCode;

#[test]
fn what_the_server_says_is_kept() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let times = |annotations: &[(&str, &str)]| {
        let url = ("auth-url", "http://auth.local/");
        let read = read(&[&[url], annotations].concat());
        assert_eq!(read.denied, None);
        let external = read.settings.access.external.expect("a server");
        external.cache.as_ref().map(|cache| cache.times.clone())
    };
    let key = ("auth-cache-key", "$remote_user$http_authorization");
    let of = |duration| times(&[key, ("auth-cache-duration", duration)]);
    assert_eq!(times(&[]), None);
    assert_eq!(times(&[("auth-cache-duration", "200 5m")]), None);
    let usual = Some(vec![(vec![200, 202, 401], minutes(5))]);
    assert_eq!((times(&[key]), of(" ")), (usual.clone(), usual));
    let several = vec![(vec![200, 202], minutes(10)), (vec![401], minutes(60))];
    assert_eq!(of("200  202 10m, 401 1h"), Some(several));
    assert_eq!(of("30m"), Some(vec![(vec![200, 301, 302], minutes(30))]));
    // Nothing is kept by times that are none.
    for bad in [
        "200 202", "5", "5m 200", "999 5m", "2xx 5m", "200 5m,", "200 5 m",
    ] {
        assert_eq!(of(bad), None, "{bad}");
    }
    let globals = [
        ("global-auth-url", "http://auth.local/"),
        ("global-auth-cache-key", "$remote_user"),
        ("global-auth-cache-duration", "200 1m"),
    ];
    let of_all = read_with(&globals, &[]).settings.access.external;
    let cache = of_all.as_ref().and_then(|external| external.cache.clone());
    let cache = cache.expect("it is kept");
    assert_eq!(cache.key.text(), "$remote_user");
    assert_eq!(cache.times, [(vec![200], minutes(1))]);
    assert_eq!(cache.time(StatusCode::OK), Some(minutes(1)));
    assert_eq!(cache.time(StatusCode::UNAUTHORIZED), None);
}
