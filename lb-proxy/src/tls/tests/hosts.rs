use std::{sync::Arc, time::Instant};

use lb_route::input::Data;

use super::{
    super::{
        SecretError,
        certificates::Loaded,
        hosts::{Certificates, Choice, Demand, Host, Options, Shows},
    },
    authority::{Authority, secret},
    server::{demanding, host, table},
};

fn config(table: &Certificates, name: &str) -> Arc<rustls::ServerConfig> {
    match table.choose(Some(name)) {
        Choice::Serve(served) => served.config.clone(),
        choice => panic!("{name}: {choice:?}"),
    }
}

#[test]
fn what_has_not_changed_is_kept() {
    let authority = Authority::new("Authority");
    let (one, two) = (
        authority.host(&["a.test", "b.test"]),
        authority.host(&["c.test"]),
    );
    let (one, two, new) = (one.secret(), two.secret(), two.secret());
    let ca = secret(&[("ca.crt", &authority.pem)]);
    let demand = |depth| Demand {
        secret: Some(ca.clone()),
        depth,
    };
    let hosts = |two: &Arc<Data>| {
        vec![
            host("a.test", Shows::Secret(one.clone())),
            host("b.test", Shows::Secret(one.clone())),
            demanding("c.test", Shows::Secret(two.clone()), demand(1)),
            demanding("d.test", Shows::Default, demand(1)),
            demanding("e.test", Shows::Default, demand(2)),
            host("plain.test", Shows::Default),
        ]
    };
    let options = Options::default();
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let first = Certificates::build(None, &options, (None, &fallback), hosts(&two));
    let same = |one: &Certificates, first: &str, other: &Certificates, second: &str| {
        Arc::ptr_eq(&config(one, first), &config(other, second))
    };
    assert!(same(&first, "a.test", &first, "b.test"));
    assert!(!same(&first, "c.test", &first, "d.test"));
    assert!(!same(&first, "d.test", &first, "e.test"));
    assert!(same(&first, "plain.test", &first, "unknown.test"));

    let second = Certificates::build(Some(&first), &options, (None, &fallback), hosts(&new));
    for name in [
        "a.test",
        "b.test",
        "d.test",
        "e.test",
        "plain.test",
        "unknown.test",
    ] {
        assert!(same(&first, name, &second, name), "{name}");
    }
    // The same content, but a Secret that came anew.
    assert!(!same(&first, "c.test", &second, "c.test"));
}

#[test]
fn other_options_make_all_anew() {
    let authority = Authority::new("Authority");
    let hosts = vec![host(
        "a.test",
        Shows::Secret(authority.host(&["a.test"]).secret()),
    )];
    let http1 = Options {
        http2: false,
        ..Options::default()
    };
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let first = table(&Options::default(), hosts.clone());
    let second = Certificates::build(Some(&first), &http1, (None, &fallback), hosts);
    let [first, second] = [first, second].map(|table| config(&table, "a.test"));
    assert_eq!(first.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(second.alpn_protocols, [b"http/1.1"]);
}

#[test]
fn the_first_of_a_name_counts() {
    let authority = Authority::new("Authority");
    let first = authority.host(&["a.test"]).secret();
    let hosts = vec![
        host("a.test", Shows::Secret(first)),
        host("a.test", Shows::Backend),
    ];
    let table = table(&Options::default(), hosts);
    assert!(matches!(table.choose(Some("a.test")), Choice::Serve(_)));
}

#[test]
fn what_is_wrong_is_reported() {
    let authority = Authority::new("Authority");
    let own = authority.host(&["a.test"]).secret();
    let nothing = secret(&[]);
    let hosts = vec![
        host("a.test", Shows::Secret(own.clone())),
        host("b.test", Shows::Secret(own.clone())),
        host("c.test", Shows::Secret(nothing.clone())),
        host("d.test", Shows::Backend),
        demanding("e.test", Shows::Default, demand_of(&nothing)),
    ];
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let options = Options::default();
    let table = Certificates::build(None, &options, (Some(&nothing), &fallback), hosts);
    assert_eq!(table.default_facts(), fallback.facts());
    let mut reports: Vec<_> = table.reports().collect();
    reports.sort_by_key(|report| report.host);
    let seen = reports.iter().map(|report| {
        let certificate = report
            .certificate
            .map(|read| read.map(|facts| &facts.names[0][..]));
        (
            report.host,
            certificate,
            report.not_covered,
            report.auth.cloned(),
        )
    });
    let default = Some(Ok("ingress.local"));
    let [no_crt, no_ca] = ["tls.crt", "ca.crt"].map(SecretError::Missing);
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("a.test", Some(Ok("a.test")), false, None),
            ("b.test", default, true, None),
            ("c.test", Some(Err(&no_crt)), false, None),
            ("d.test", None, false, None),
            ("e.test", default, false, Some(no_ca)),
        ]
    );
    assert_eq!(table.default_error(), Some(&no_crt));
}

fn demand_of(secret: &Arc<Data>) -> Demand {
    let secret = Some(secret.clone());
    Demand { secret, depth: 1 }
}

#[test]
fn a_demand_without_its_authority() {
    let demand = Demand {
        secret: None,
        depth: 1,
    };
    let hosts = vec![
        demanding("*.a.test", Shows::Default, demand),
        host("a.test", Shows::Default),
    ];
    let table = table(&Options::default(), hosts);
    assert_eq!(table.auth_error("x.a.test"), Some(&SecretError::NoSecret));
    assert_eq!(table.auth_error("a.test"), None);
    assert_eq!(table.auth_error("unknown.test"), None);
}

#[test]
fn ten_thousand_hosts() {
    let authority = Authority::new("Authority");
    let name = |index: usize| format!("h{index}.test");
    let issued = (0..10_000).map(|index| authority.host(&[&name(index)]).secret());
    let mut secrets: Vec<_> = issued.collect();
    let hosts = |secrets: &[Arc<Data>]| -> Vec<Host> {
        let shown = secrets.iter().cloned().map(Shows::Secret);
        shown
            .enumerate()
            .map(|(index, shows)| host(&name(index), shows))
            .collect()
    };
    let before = resident();
    let first = table(&Options::default(), hosts(&secrets));
    let grown = resident().saturating_sub(before);
    // 2.6 KiB each were seen, with all that other tests took meanwhile.
    assert!(grown < 160 << 20, "{} KiB", grown >> 10);

    secrets[7] = authority.host(&["h7.test"]).secret();
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let hosts = hosts(&secrets);
    let begin = Instant::now();
    let second = Certificates::build(Some(&first), &Options::default(), (None, &fallback), hosts);
    let took = begin.elapsed();
    let changed = (0..10_000).filter(|index| {
        let name = name(*index);
        !Arc::ptr_eq(&config(&first, &name), &config(&second, &name))
    });
    assert_eq!(changed.collect::<Vec<_>>(), [7]);
    println!("{} KiB, {took:?}", grown >> 10);
}

/// Bytes of this process in memory (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
