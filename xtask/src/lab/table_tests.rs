//! The table as a user sees it, written out.

use std::collections::BTreeSet;

use super::super::rows::{Ask, Kind, Proto, RowKey};
use super::super::topology::Place;
use super::*;

fn row(target: &str, place: Place, expect: Expect) -> Row {
    let key = RowKey {
        service: "default/web".to_owned(),
        kind: Kind::ClusterIp,
        ask: None,
        proto: Proto::Tcp,
        target: target.parse().unwrap(),
        place,
    };
    Row {
        key,
        expect,
        client: None,
    }
}

fn spread(pods: &[&str]) -> Expect {
    Expect::Spread(
        pods.iter()
            .map(|p| (*p).to_owned())
            .collect::<BTreeSet<_>>(),
    )
}

fn tally(backends: &[(&str, u64)], errors: &[(&str, u64)]) -> Tally {
    let own = |list: &[(&str, u64)]| list.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
    Tally {
        backends: own(backends),
        errors: own(errors),
        programs: (18_200, 100),
        ..Tally::default()
    }
}

#[test]
fn every_place_has_a_line_and_every_backend_a_bar() {
    let pods = ["n1-a", "n2-a", "n3-a"];
    let (pod, node) = (
        row("10.96.0.10:80", Place::Pod, spread(&pods)),
        row("10.96.0.10:80", Place::Node, spread(&pods)),
    );
    let (good, bad) = (
        tally(&[("n1-a", 80), ("n2-a", 76), ("n3-a", 84)], &[]),
        tally(
            &[("n1-a", 120), ("n2-a", 60), ("n3-a", 59)],
            &[("timeout", 1)],
        ),
    );
    let lines = render(
        &[(&pod, &good), (&node, &bad)],
        Detail::Places,
        Paint(false),
    );
    let expected = "\
480 connections in 2 of 2 rows; 1 not as they should be (see the end)
  frontend                    from     conns  err   ns share of each backend
default/web ClusterIP  n1-a n2-a n3-a
  10.96.0.10:80/tcp           pod        240    0  182 █▍  33% █▎  32% █▍  35%
                              node       240    1  182 ██  50% █   25% █   25%

✗ default/web ClusterIP 10.96.0.10:80/tcp from node:
    1 of 240 connections failed: 1 timeout";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn the_short_table_adds_the_places_up() {
    let (pod, node) = (
        row("10.96.0.10:80", Place::Pod, spread(&["a"])),
        row("10.96.0.10:80", Place::Node, spread(&["a"])),
    );
    let one = tally(&[("a", 5)], &[]);
    let lines = render(
        &[(&pod, &one), (&node, &one)],
        Detail::Frontends,
        Paint(false),
    );
    assert_eq!(
        lines[3],
        "  10.96.0.10:80/tcp           pn          10    0  182 ███100%"
    );
    assert_eq!(lines.len(), 4);
}

#[test]
fn refusal_and_silence_are_results_and_no_errors() {
    let (refused, dropped) = (
        row("10.96.0.80:80", Place::Pod, Expect::Refused),
        row("10.96.0.81:80", Place::Pod, Expect::Dropped),
    );
    let (r, d) = (tally(&[], &[("refused", 4)]), tally(&[], &[("timeout", 4)]));
    let lines = render(
        &[(&refused, &r), (&dropped, &d)],
        Detail::Places,
        Paint(false),
    );
    assert_eq!(
        lines[0],
        "8 connections in 2 of 2 rows; all as it should be"
    );
    assert!(lines[3].ends_with("4    0  182 refused"), "{}", lines[3]);
    assert!(lines[4].ends_with("4    0  182 no answer"), "{}", lines[4]);
}

/// A row of an Ingress.
fn by_url(url: &str, target: &str, expect: Expect) -> Row {
    let mut row = row(target, Place::Outside, expect);
    row.key.service = "default/blog".to_owned();
    row.key.kind = Kind::Ingress;
    row.key.ask = Some(Ask {
        url: url.to_owned(),
        path: "/".to_owned(),
    });
    row
}

#[test]
fn ingresses_are_shown_by_their_urls() {
    let (http, https) = (
        by_url("http://b.test/", "203.0.113.90:80", Expect::Redirected),
        by_url("https://b.test/", "[2001:db8::90]:443", spread(&["a"])),
    );
    let long = by_url(
        "https://blog.test/a/path/that/is/long",
        "[2001:db8::90]:443",
        spread(&["a"]),
    );
    let led = tally(&[], &[("redirected", 4)]);
    let (good, lost) = (tally(&[("a", 4)], &[]), tally(&[], &[("status 503", 4)]));
    let lines = render(
        &[(&http, &led), (&https, &good), (&long, &lost)],
        Detail::Places,
        Paint(false),
    );
    let expected = "\
12 connections in 3 of 3 rows; 1 not as they should be (see the end)
  frontend                    from     conns  err   ns share of each backend
default/blog Ingress  a
  http://b.test/              outside      4    0  182 redirected
  https://b.test/ (v6)        outside      4    0  182 ███100%
  https://blog.test/a/p… (v6) outside      4    4  182     0%

✗ default/blog Ingress https://blog.test/a/path/that/is/long by [2001:db8::90]:443 from outside:
    4 of 4 connections failed: 4 status 503";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn rows_without_traffic_are_neither_good_nor_bad() {
    let row = row("10.96.0.10:80", Place::Pod, spread(&["a", "b"]));
    let lines = render(&[(&row, &Tally::default())], Detail::Places, Paint(false));
    assert_eq!(lines[0], "0 connections in 0 of 1 rows; ");
    assert_eq!(
        lines[3],
        "  10.96.0.10:80/tcp           pod          0    0    -     0%      0%"
    );
    assert_eq!(lines.len(), 4);
}

#[test]
fn no_line_is_wider_than_80_columns() {
    let pods = ["n1-a", "n1-b", "n2-a", "n2-b", "n3-a", "n3-b"];
    let row = row("[2001:db8:113::10]:5353", Place::Stranger, spread(&pods));
    let lone = tally(&[("n1-a", 999_999)], &[]);
    let even = tally(&pods.map(|p| (p, 100)), &[]);
    for tally in [lone, even] {
        for detail in [Detail::Places, Detail::Frontends] {
            let lines = render(&[(&row, &tally)], detail, Paint(false));
            // The sentences on failures may be longer; they are not columns.
            let columns = lines.iter().take_while(|l| !l.is_empty());
            let widest = columns.map(|l| l.chars().count()).max();
            assert!(widest <= Some(80), "{lines:#?}");
        }
    }
}

#[test]
fn bars_grow_by_eighths() {
    assert_eq!(bar(0, 10, 4), "    ");
    assert_eq!(bar(10, 10, 4), "████");
    assert_eq!(bar(1, 2, 4), "██  ");
    assert_eq!(bar(1, 32, 4), "▏   ");
    assert_eq!(bar(0, 0, 4), "    ");
}
