//! What `service list` and `backend list` print.

use std::net::IpAddr;

use lb_common::{
    Addr, AffinityKey, Backend, Be16, Frontend, FrontendKey, ServiceCounter, backend_flags,
    frontend_flags, proto, scope,
};
use lb_datapath::socket::affinity_client;
use lb_plan::model::{Protocol, ServiceKey, ServicePortKey};
use lb_userspace::{
    bpf::views::AffinityView,
    cli::{
        affinity::{AffinityRow, affinities_text, affinity_rows},
        maglev::{table_rows, tables_text},
        rows::{Held, backends_text, frontends_text, is_called},
    },
};

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().unwrap())
}

fn key(ip: &str, port: u16, proto: u8, scope: u8) -> FrontendKey {
    FrontendKey {
        addr: addr(ip),
        port: Be16::new(port),
        proto,
        scope,
    }
}

fn backend(ip: &str, flags: u32) -> Backend {
    Backend {
        addr: addr(ip),
        port: Be16::new(8080),
        proto: proto::TCP,
        reserved: 0,
        flags: backend_flags::LIVE | flags,
    }
}

#[allow(clippy::too_many_lines, reason = "a table of what the maps hold")]
fn held() -> Held {
    let f = |service, flags, slots, len, affinity| Frontend {
        service,
        flags,
        slots,
        len,
        affinity,
    };
    let table = f(1, 0, 100, 503, 0);
    let local = f(
        1,
        frontend_flags::NODE_PORT | frontend_flags::NO_SNAT,
        2,
        1,
        0,
    );
    let port = ServicePortKey {
        service: ServiceKey {
            namespace: "shop".into(),
            name: "web".into(),
        },
        port: "http".into(),
        protocol: Protocol::Tcp,
    };
    let dropped = f(2, frontend_flags::DROP_IF_EMPTY, 0, 0, 0);
    Held {
        frontends: vec![
            (key("fd00::9", 53, proto::UDP, scope::EXTERNAL), dropped),
            (key("10.96.0.1", 80, proto::TCP, scope::EXTERNAL), table),
            (key("10.96.0.1", 80, proto::TCP, scope::INTERNAL), table),
            (
                key("10.96.0.1", 0, 0, scope::INTERNAL),
                f(0, frontend_flags::VIP, 0, 0, 0),
            ),
            (key("172.30.0.2", 30080, proto::TCP, scope::EXTERNAL), local),
            (key("172.30.0.2", 30080, proto::TCP, scope::INTERNAL), table),
            (
                key("fd00::9", 53, proto::UDP, scope::INTERNAL),
                f(2, frontend_flags::SOURCE_RANGES, 0, 0, 60),
            ),
        ],
        backends: [
            (1, backend("10.244.1.5", 0)),
            (2, backend("10.244.2.5", backend_flags::LOCAL)),
            (3, backend("10.244.2.6", 0)),
            (4, backend("10.244.2.7", 0)),
        ]
        .into(),
        tables: [((100, 503), [(1, 251), (2, 126), (3, 63), (4, 63)].into())].into(),
        service_counters: [(
            1,
            ServiceCounter {
                packets: 70,
                bytes: 123_456,
                connections: 7,
            },
        )]
        .into(),
        backend_counters: [(
            2,
            ServiceCounter {
                packets: 35,
                bytes: 60_000,
                connections: 3,
            },
        )]
        .into(),
        names: [(1, port)].into(),
    }
}

#[test]
fn frontends_are_listed_by_service_with_scopes_folded_where_they_agree() {
    let expected = "\
SERVICE        FRONTEND          PROTO  SCOPE     KIND               BACKENDS                                    CONNECTIONS  PACKETS      BYTES
#2             [fd00::9]:53      UDP    internal  ranges,sticky 60s  none: refused                                         0        0        0 B
#2             [fd00::9]:53      UDP    external  -                  none: dropped                                         0        0        0 B
shop/web:http  10.96.0.1:80      TCP    both      -                  10.244.1.5:8080 10.244.2.5:8080 … 4 in all            7       70  120.6 KiB
shop/web:http  172.30.0.2:30080  TCP    internal  -                  10.244.1.5:8080 10.244.2.5:8080 … 4 in all            7       70  120.6 KiB
shop/web:http  172.30.0.2:30080  TCP    external  NodePort,Local     10.244.2.5:8080                                       7       70  120.6 KiB
";
    assert_eq!(frontends_text(&held().frontend_rows(), false), expected);
}

#[test]
fn backends_are_listed_with_their_services() {
    let expected = "\
ID  BACKEND          PROTO  WHERE       SERVICES       CONNECTIONS  PACKETS     BYTES
 1  10.244.1.5:8080  TCP    other node  shop/web:http            0        0       0 B
 2  10.244.2.5:8080  TCP    here        shop/web:http            3       35  58.6 KiB
 3  10.244.2.6:8080  TCP    other node  shop/web:http            0        0       0 B
 4  10.244.2.7:8080  TCP    other node  shop/web:http            0        0       0 B
";
    assert_eq!(backends_text(&held().backend_rows(), false), expected);
}

#[test]
fn a_wide_list_leaves_no_name_out() {
    let text = frontends_text(&held().frontend_rows(), true);
    let line = text.lines().find(|line| line.contains("10.96.0.1:80"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    let id_and_service = ["1", "shop/web:http", "10.96.0.1:80", "TCP", "both", "-"];
    assert_eq!(words[..6], id_and_service);
    let backends = ["1.5", "2.5", "2.6", "2.7"].map(|end| format!("10.244.{end}:8080"));
    assert_eq!(words[6..10], backends);
    let mut rows = held().backend_rows();
    rows[0].services = ["a", "b", "c", "d"].map(str::to_owned).into();
    assert!(backends_text(&rows, true).contains("  a b c d  "));
    assert!(backends_text(&rows, false).contains("  a b … 4 in all  "));
}

#[test]
fn json_has_numbers_as_numbers() {
    let rows = serde_json::to_value(held().frontend_rows()).unwrap();
    assert_eq!(rows[2]["port"], 80);
    assert_eq!(rows[2]["traffic"]["bytes"], 123_456);
    assert_eq!(rows[2]["backends"].as_array().unwrap().len(), 4);
    let rows = serde_json::to_value(held().backend_rows()).unwrap();
    assert_eq!(rows[1]["local"], true);
}

#[test]
fn a_dangling_id_is_shown_as_such() {
    let mut held = held();
    held.backends.remove(&2);
    let text = frontends_text(&held.frontend_rows(), false);
    assert!(text.contains("#2 (not live)"), "{text}");
}

#[test]
fn shares_are_drawn_for_each_table_of_a_service() {
    let expected = "\
shop/web:http: 172.30.0.2:30080/TCP external
  1 slots, 1 backends
  BACKEND          WHERE  SLOTS    SHARE                        CONNECTIONS
  10.244.2.5:8080  here       1  100.0 %  ████████████████████            3

shop/web:http: 10.96.0.1:80/TCP, 172.30.0.2:30080/TCP internal
  503 slots, 4 backends
  BACKEND          WHERE       SLOTS   SHARE                        CONNECTIONS
  10.244.1.5:8080  other node    251  49.9 %  ████████████████████            0
  10.244.2.5:8080  here          126  25.0 %  ██████████                      3
  10.244.2.6:8080  other node     63  12.5 %  █████                           0
  10.244.2.7:8080  other node     63  12.5 %  █████                           0
";
    assert_eq!(
        tables_text(&table_rows(&held(), Some("shop/web"))),
        expected
    );
    let empty = "\
#2: [fd00::9]:53/UDP
  no backend
";
    let rows = table_rows(&held(), Some("#2"));
    assert_eq!(tables_text(&rows), empty);
    assert!(table_rows(&held(), Some("shop")).is_empty());
}

#[test]
fn a_service_goes_by_the_parts_of_its_name() {
    for name in ["shop/web:http", "shop/web", "web:http", "web"] {
        assert!(is_called("shop/web:http", name), "{name}");
    }
    for name in ["shop", "http", "shop/web:https", "other/web", "we", ""] {
        assert!(!is_called("shop/web:http", name), "{name}");
    }
    // A port without a name.
    assert!(is_called("shop/web", "shop/web") && is_called("shop/web", "web"));
    assert!(is_called("#2", "#2") && !is_called("#2", "2"));
}

#[test]
fn bindings_are_listed_with_their_end() {
    let mut held = held();
    for (key, value) in &mut held.frontends {
        if value.service == 1 && key.scope == scope::INTERNAL {
            value.affinity = 600;
        }
    }
    let view = |client, scope, backend, idle| AffinityView {
        key: AffinityKey {
            client,
            service: 1,
            scope: u32::from(scope),
        },
        backend,
        idle,
    };
    let bindings = [
        view(addr("10.244.1.9"), scope::INTERNAL, 1, 20),
        view(addr("10.244.1.8"), scope::INTERNAL, 2, 601),
        view(affinity_client(4242, true), scope::INTERNAL, 3, 5),
        view(addr("10.244.1.7"), scope::INTERNAL, 9, 5),
        view(addr("203.0.113.9"), scope::EXTERNAL, 2, 5),
    ];
    let mut rows = affinity_rows(&held, &bindings);
    rows.sort_by_cached_key(AffinityRow::order);
    let expected = "\
SERVICE        CLIENT             SCOPE     BACKEND            IDLE  ENDS
shop/web:http  netns cookie 4242  internal  10.244.2.6:8080      5s  in 9m55s
shop/web:http  10.244.1.7         internal  #9 (not live)        5s  ended
shop/web:http  10.244.1.8         internal  10.244.2.5:8080  10m01s  ended
shop/web:http  10.244.1.9         internal  10.244.1.5:8080     20s  in 9m40s
shop/web:http  203.0.113.9        external  10.244.2.5:8080      5s  ended
";
    assert_eq!(affinities_text(&rows), expected);
    let json = serde_json::to_value(&rows).unwrap();
    assert_eq!(json[0]["namespace"], 4242);
    assert_eq!(json[3]["client"], "10.244.1.9");
    assert_eq!(
        (&json[3]["bound"], &json[3]["timeout"]),
        (&true.into(), &600.into())
    );
}
