//! `bascule top` on a terminal, beside a node that serves.

use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::world::World;
use serde_json::json;

const WEB: &str = "10.97.0.10:80";
const TOP: [&str; 3] = ["top", "--interval", "0.3"];

/// The words of the first line that has `name`, from there on.
fn line<'a>(screen: &'a str, name: &str) -> Vec<&'a str> {
    let line = screen.lines().find(|line| line.contains(name));
    let words = line.into_iter().flat_map(str::split_whitespace);
    words.skip_while(|word| *word != name).collect()
}

/// Whether the number after a name is more than 0.
fn is_busy(screen: &str, name: &str) -> bool {
    let rate = line(screen, name)
        .get(1)
        .and_then(|n| n.parse::<f64>().ok());
    rate.is_some_and(|rate| rate > 0.0)
}

#[test]
fn the_service_with_traffic_is_on_top() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pods = [node.pod(2), node.pod(3)];
    let mut client = node.sandboxed_pod(4);
    let both: Vec<&Pod> = pods.iter().collect();
    // By name the other one would be first.
    node.apply("api", &with_pods(dual("api", 11, json!({})), &both));
    node.apply("web", &with_pods(dual("web", 10, json!({})), &both));
    let _agent = node.agent(&[]);
    client.peer.load(&[WEB], 50, 2);

    let mut top = node.on_terminal(&TOP);
    let screen = top.shows(|s| is_busy(s, "default/web:tcp"));
    let rows: Vec<&str> = screen.lines().skip(3).take(4).collect();
    assert!(rows[0].starts_with("> default/web:tcp "), "{screen}");
    assert_eq!(
        line(&screen, "default/api:tcp")[1..],
        ["0.0", "0.0", "0", "B"],
        "{screen}"
    );
    assert!(rows[1].starts_with("  default/api:tcp "), "{screen}");

    top.types("\r");
    let places = pods.iter().map(|pod| format!("{}:8080", pod.v4()));
    let places: Vec<String> = places.collect();
    let screen = top.shows(|s| {
        // WHERE, SHARE, GETS, and then the rate.
        let busy = |place: &String| line(s, place).get(4).is_some_and(|rate| *rate != "0.0");
        s.starts_with("Backends of default/web:tcp ") && places.iter().all(busy)
    });
    let shares = places.iter().map(|place| line(&screen, place)[2]);
    let shares: Vec<f64> = shares
        .map(|s| s.trim_end_matches('%').parse().unwrap())
        .collect();
    // With those of IPv6 it is 100.
    assert!((40.0..60.0).contains(&shares.iter().sum()), "{screen}");
    assert_eq!(line(&screen, &places[0])[1], "here", "{screen}");

    top.types("\t");
    let address = client.v4().to_string();
    let screen = top.shows(|s| s.starts_with("Node ") && line(s, &address).len() == 3);
    assert!(screen.contains("SNAT       no flow"), "{screen}");
    assert!(
        line(&screen, &address)[1].parse::<u64>().unwrap() >= 2,
        "{screen}"
    );

    top.types("q");
    let (status, is_own) = top.ended();
    assert!(status.success() && is_own, "{status:?}, {is_own}");
    client.peer.rest().well().unwrap();
}

#[test]
fn the_terminal_is_given_back() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pod = node.pod(2);
    node.apply("web", &with_pods(dual("web", 10, json!({})), &[&pod]));
    let said = node.bascule(&TOP);
    assert_eq!((said.status, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(
        said.err
            .contains("no terminal: `bascule service list --json`"),
        "{said:?}"
    );

    // What fails at once is said where it stays.
    let mut top = node.on_terminal(&TOP);
    let (status, is_own) = top.ended();
    assert!(status.code() == Some(1) && is_own, "{status:?}");
    assert!(top.screen().contains("start the agent"), "{}", top.screen());

    let _agent = node.agent(&[]);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let mut top = node.on_terminal(&TOP);
        top.shows(|s| s.contains("default/web:tcp"));
        top.signal(signal);
        let (status, is_own) = top.ended();
        assert!(status.success() && is_own, "{signal}: {status:?}, {is_own}");
    }
}
