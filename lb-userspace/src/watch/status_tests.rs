use super::*;

fn service(text: &str) -> ApiService {
    serde_json::from_str(text).unwrap()
}

fn texts(addresses: &[Address]) -> Vec<String> {
    let text = |address: &Address| format!("{}/{}", address.hostname, address.ip);
    addresses.iter().map(text).collect()
}

/// Services, and the host names and addresses that lead to them: the cases of ingress-nginx
/// v1.15.1, internal/ingress/status/status_test.go, said in other words.
#[test]
fn addresses_of_services() {
    let cases: [(&str, &[&str]); 10] = [
        (
            r#"{"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}}"#,
            &["/10.0.0.1"],
        ),
        (r#"{"spec": {"clusterIP": "fd00::1"}}"#, &["/fd00::1"]),
        (
            r#"{"spec": {"type": "ClusterIP", "clusterIP": "None"}}"#,
            &[],
        ),
        (
            r#"{"spec": {"type": "ExternalName", "externalName": "a.test"}}"#,
            &["a.test/"],
        ),
        (
            r#"{"spec": {"type": "NodePort", "clusterIP": "10.0.0.1"}}"#,
            &["/10.0.0.1"],
        ),
        (
            r#"{"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.9", "192.0.2.1"]}}"#,
            &["/192.0.2.1", "/192.0.2.9"],
        ),
        (
            r#"{"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}}"#,
            &[],
        ),
        (
            r#"{"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "b.test"}, {"hostname": "a.test", "ip": "192.0.2.2"}]}}}"#,
            &["/192.0.2.1", "a.test/192.0.2.2", "b.test/"],
        ),
        (
            r#"{"spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.3", "192.0.2.1"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}"#,
            &["/192.0.2.1", "/192.0.2.3"],
        ),
        ("{}", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(texts(&addresses_of(&service(text))), expected, "{text}");
    }
}

#[test]
fn what_is_no_address_is_a_name() {
    for (text, expected) in [
        ("192.0.2.1", "/192.0.2.1"),
        (" 2001:db8::1", "/2001:db8::1"),
        ("lb.a.test", "lb.a.test/"),
        ("192.0.2.1.a.test", "192.0.2.1.a.test/"),
    ] {
        assert_eq!(texts(&[address(text)]), [expected]);
    }
}

#[test]
fn the_status_has_what_there_is() {
    let both = Address {
        hostname: "a.test".into(),
        ip: "192.0.2.1".into(),
    };
    let all = [both, address("192.0.2.2"), address("b.test")];
    let expected = r#"{"status":{"loadBalancer":{"ingress":[{"hostname":"a.test","ip":"192.0.2.1"},{"ip":"192.0.2.2"},{"hostname":"b.test"}]}}}"#;
    assert_eq!(
        patch(&all),
        serde_json::from_str::<Value>(expected).unwrap()
    );
    let none = r#"{"status":{"loadBalancer":{"ingress":[]}}}"#;
    assert_eq!(patch(&[]), serde_json::from_str::<Value>(none).unwrap());
}

fn ours(all: &[(&str, &[&str])]) -> Ours {
    let entry = |(name, there): &(&str, &[&str])| {
        let there = there.iter().map(|text| address(text)).collect();
        (Name::new("shop", name), there)
    };
    Arc::new(all.iter().map(entry).collect())
}

fn due(written: &mut Written, ours: &Ours, wanted: &[&str], now: Instant) -> Vec<String> {
    let wanted: Vec<_> = wanted.iter().map(|text| address(text)).collect();
    let due = written.due(ours, &wanted, now);
    due.iter().map(|name| name.name.to_string()).collect()
}

#[test]
fn only_what_differs_is_due() {
    let there = ours(&[
        ("none", &[]),
        ("other", &["192.0.2.9"]),
        ("same", &["192.0.2.2", "192.0.2.1"]),
    ]);
    let mut written = Written::default();
    let now = Instant::now();
    let wanted = ["192.0.2.1", "192.0.2.2"];
    assert_eq!(due(&mut written, &there, &wanted, now), ["none", "other"]);
    assert_eq!(due(&mut written, &there, &[], now), ["other", "same"]);
}

#[test]
fn what_was_written_is_not_written_again_before_it_had_time_to_be_seen() {
    let there = ours(&[("web", &[])]);
    let mut written = Written::default();
    let now = Instant::now();
    let name = Name::new("shop", "web");
    written.wrote(name.clone(), &[address("192.0.2.1")], now);
    assert!(due(&mut written, &there, &["192.0.2.1"], now).is_empty());
    // The addresses are others now.
    assert_eq!(due(&mut written, &there, &["192.0.2.2"], now), ["web"]);
    let later = now + SETTLE - Duration::from_millis(1);
    assert!(due(&mut written, &there, &["192.0.2.1"], later).is_empty());
    // Somebody has written something else since.
    assert_eq!(
        due(&mut written, &there, &["192.0.2.1"], now + SETTLE),
        ["web"]
    );
    // One that is gone and comes again is another one.
    written.wrote(name, &[address("192.0.2.1")], now);
    assert!(due(&mut written, &ours(&[]), &["192.0.2.1"], now).is_empty());
    assert_eq!(due(&mut written, &there, &["192.0.2.1"], now), ["web"]);
}
