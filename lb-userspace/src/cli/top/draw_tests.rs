//! The screens at 80×24, written by hand from what is shown.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use lb_common::{Reason, ServiceCounter};
use ratatui::{Terminal, backend::TestBackend, style::Modifier};

use super::*;
use crate::{
    bpf::census::Fill,
    cli::top::rates::{Counted, Node, Part, Reading, Seen, Snat},
};

const SERVICES: &str = "\
Services                                                               every 2 s
3 in all: 152 connections/s, 12.4k packets/s, 1.5 MiB/s
  SERVICE                                          CONN/S▼  PACKETS/S    BYTES/S
> shop/web:http                                        150      12.3k    1.5 MiB
  shop/cart:grpc                                       1.5         20    1.0 KiB
  default/kubernetes:https                             0.0        0.0        0 B

















q quit  enter backends  tab node  / filter  c p b n sort  r reverse  ↑↓ move
";

const BACKENDS: &str = "\
Backends of shop/web:http                                            every 0.5 s
3 in all: 8.0 connections/s, 100 packets/s, 4.9 KiB/s
  BACKEND▲                    WHERE  SHARE   GETS   CONN/S  PACKETS/S    BYTES/S
  10.244.1.5:8080              here  25.0%  75.0%      6.0         60    3.9 KiB
> 10.244.2.6:8080             other  50.0%  25.0%      2.0         40    1.0 KiB
  [2001:db8:a:b…98:abcd]:8080 other  25.0%      -        -          -          -
















the names of services are not known: no such file
q quit  esc services  tab node  / filter  c p b n sort  r reverse  ↑↓ move
";

const NODE: &str = "\
Node with \"10.\"                                                        every 1 s

Conntrack  IPv4  ██████████             50.0%  524288 of 1048576 entries
           IPv6  ▏                       0.6%  64 of 10000 entries
SNAT       30 flows; most to 10.244.2.6:8080/TCP: 20 of 2000 ports, 1.0%

REFUSED OR DROPPED    PACKETS/S         IN ALL
source_range                2.5             25
no_endpoints                0.0         123456

CLIENT (2 in all)                            FLOWS   SHARE
10.0.0.7                                        90   90.0%
10.0.0.8                                        10   10.0%










Filter: 10._   enter keep   esc clear
";

/// Connections, packets and bytes.
type Carried = (u64, u64, u64);

fn counted(id: u32, name: &str, part: Option<Part>, carried: Carried) -> Counted {
    let (connections, packets, bytes) = carried;
    let counter = ServiceCounter {
        packets,
        bytes,
        connections,
    };
    Counted {
        id,
        name: name.into(),
        part,
        counter,
    }
}

fn reading(seconds: u64, seen: Seen) -> Reading {
    Reading {
        at: Duration::from_secs(seconds),
        seen,
        note: None,
    }
}

fn press(state: &mut State, keys: &[KeyCode]) {
    for key in keys {
        state.key(KeyEvent::from(*key));
    }
}

fn draw_on(state: &State, interval: f64, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let look = Look { interval, colour };
    terminal.draw(|frame| draw(frame, state, look)).unwrap();
    terminal
}

/// The screen as text, without trailing blanks.
fn screen(state: &State, interval: f64) -> String {
    let terminal = draw_on(state, interval, false);
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(80).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

fn services(carried: [Carried; 3]) -> Seen {
    let names = [
        "default/kubernetes:https",
        "shop/web:http",
        "shop/cart:grpc",
    ];
    let all = (1..).zip(names).zip(carried);
    Seen::Counted(
        all.map(|((id, name), carried)| counted(id, name, None, carried))
            .collect(),
    )
}

fn two_readings() -> State {
    let mut state = State::default();
    assert!(state.take(reading(
        1,
        services([(7, 7, 7), (100, 1000, 10_000), (0, 0, 0)])
    )));
    // In two seconds 300 connections of 24,690 packets and 3 MiB, and 3 of 40 and 2,000 B.
    let carried = [(7, 7, 7), (400, 25_690, 3_155_728), (3, 40, 2000)];
    assert!(!state.take(reading(3, services(carried))));
    state
}

#[test]
fn services_are_drawn() {
    assert_eq!(screen(&two_readings(), 2.0), SERVICES);
}

#[test]
fn backends_are_drawn() {
    let mut state = two_readings();
    press(
        &mut state,
        &[KeyCode::Enter, KeyCode::Char('n'), KeyCode::Down],
    );
    let part = |local, share| Some(Part { local, share });
    let long = "[2001:db8:a:b:c:1234:5698:abcd]:8080";
    let here = |carried| counted(4, "10.244.1.5:8080", part(true, 0.25), carried);
    let other = |carried| counted(5, "10.244.2.6:8080", part(false, 0.5), carried);
    let new = counted(6, long, part(false, 0.25), (9, 9, 9));
    let before = vec![here((0, 0, 0)), other((0, 0, 0))];
    state.take(reading(10, Seen::Counted(before)));
    press(&mut state, &[KeyCode::Down]);
    let now = vec![here((6, 60, 4000)), other((2, 40, 1000)), new];
    let note = Some("the names of services are not known: no such file".to_owned());
    state.take(Reading {
        note,
        ..reading(11, Seen::Counted(now))
    });
    assert_eq!(screen(&state, 0.5), BACKENDS);
}

#[test]
fn the_node_is_drawn() {
    let mut state = State::default();
    press(&mut state, &[KeyCode::Tab, KeyCode::Char('/')]);
    press(&mut state, &['1', '0', '.'].map(KeyCode::Char));
    let node = |drops: [(Reason, u64); 2]| {
        let fill = |used, room| Fill { used, room };
        Seen::Node(Box::new(Node {
            conntrack: [fill(524_288, 1_048_576), fill(64, 10_000)],
            snat: Snat {
                flows: 30,
                most: Some(("10.244.2.6:8080/TCP".into(), 20)),
                ports: 2000,
            },
            drops: drops.to_vec(),
            clients: ["10.0.0.7", "2001:db8::1", "10.0.0.8"]
                .iter()
                .zip([90, 50, 10])
                .map(|(client, flows)| (client.parse().unwrap(), flows))
                .collect(),
        }))
    };
    let (refused, dropped) = (Reason::NoEndpoints, Reason::SourceRange);
    state.take(reading(1, node([(refused, 123_456), (dropped, 20)])));
    state.take(reading(3, node([(refused, 123_456), (dropped, 25)])));
    assert_eq!(screen(&state, 1.0), NODE);
}

#[test]
fn the_page_of_the_chosen_row_is_shown() {
    let mut state = State::default();
    let row = |id: u32| counted(id, &format!("s{id:04}"), None, (0, 0, 0));
    state.take(reading(1, Seen::Counted((0..10_000).map(row).collect())));
    press(&mut state, &[KeyCode::Char('n'), KeyCode::End]);
    // 19 rows fit: the last page begins with row 526 * 19.
    let screen = screen(&state, 1.0);
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[3].starts_with("  s9994 "), "{screen}");
    assert!(
        lines[8].starts_with("> s9999 ") && lines[9].is_empty(),
        "{screen}"
    );
}

#[test]
fn the_chosen_row_is_seen_without_colours() {
    let colours = |colour| {
        let terminal = draw_on(&two_readings(), 1.0, colour);
        let cells = terminal.backend().buffer().content().to_vec();
        let coloured = |c: &&ratatui::buffer::Cell| c.fg != Color::Reset || c.bg != Color::Reset;
        let inverted = |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
        assert!(cells[3 * 80..4 * 80].iter().all(inverted));
        cells.iter().filter(coloured).count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 80);
}

#[test]
fn names_keep_both_ends() {
    for (name, width, short) in [
        ("shop/web:http", 13, "shop/web:http"),
        ("shop/web:http", 12, "shop/w…:http"),
        ("größe/ähre:x", 7, "grö…e:x"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ] {
        assert_eq!(shorten(name, width), short, "{width}");
    }
}

#[test]
fn numbers_have_six_characters_at_most() {
    for (rate, text) in [
        (0.0, "0.0"),
        (0.04, "0.0"),
        (9.94, "9.9"),
        (9.96, "10"),
        (9999.4, "9999"),
        (9999.6, "10.0k"),
        (999_940.0, "999.9k"),
        (999_960.0, "1.0M"),
        (999_960_000.0, "1.0G"),
    ] {
        assert_eq!(number(rate), text, "{rate}");
    }
}
