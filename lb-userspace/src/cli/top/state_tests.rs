use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use lb_common::ServiceCounter;

use super::*;
use crate::cli::top::rates::Counted;

/// Connections, packets and bytes of what is called so, in one second each.
const ROWS: [(&str, u64, u64, u64); 4] = [
    ("shop/Web:http", 5, 10, 900),
    ("shop/cart:grpc", 0, 30, 100),
    ("default/dns:udp", 7, 20, 200),
    ("default/api:https", 0, 30, 50),
];

/// A state in which all of them have been read twice.
fn state() -> State {
    let mut state = State::default();
    read_twice(&mut state);
    state
}

fn read_twice(state: &mut State) {
    for second in 1..=2 {
        let counted = |(id, (name, connections, packets, bytes)): (u32, (&str, u64, u64, u64))| {
            let counter = ServiceCounter {
                packets: packets * second,
                bytes: bytes * second,
                connections: connections * second,
            };
            Counted {
                id,
                name: name.into(),
                part: None,
                counter,
            }
        };
        state.take(Reading {
            at: Duration::from_secs(second),
            seen: Seen::Counted((1..).zip(ROWS).map(counted).collect()),
            note: None,
        });
    }
}

/// A key by its name, or each letter of a word.
fn press(state: &mut State, keys: &str) -> Vec<Todo> {
    let key = |word: &str| match word {
        "enter" => vec![KeyCode::Enter],
        "esc" => vec![KeyCode::Esc],
        "tab" => vec![KeyCode::Tab],
        "back" => vec![KeyCode::Backspace],
        "up" => vec![KeyCode::Up],
        "down" => vec![KeyCode::Down],
        "home" => vec![KeyCode::Home],
        "end" => vec![KeyCode::End],
        letters => letters.chars().map(KeyCode::Char).collect(),
    };
    let codes: Vec<KeyCode> = keys.split(' ').flat_map(key).collect();
    codes.into_iter().map(|c| state.key(c.into())).collect()
}

fn ids(state: &State) -> Vec<u32> {
    state.rows().iter().map(|row| row.id).collect()
}

fn chosen(state: &State) -> Option<u32> {
    let rows = state.rows();
    rows.get(state.place(&rows)).map(|row| row.id)
}

#[test]
fn rows_have_the_order_that_is_asked_for() {
    for (keys, order) in [
        // Those with none by their packets, and then by name.
        ("c", [3, 1, 4, 2]),
        ("c r", [4, 2, 1, 3]),
        ("p", [4, 2, 3, 1]),
        ("b", [1, 3, 2, 4]),
        ("b r", [4, 2, 3, 1]),
        ("n", [4, 3, 1, 2]),
        ("n r", [2, 1, 3, 4]),
        ("r r", [3, 1, 4, 2]),
        // An order begins the right way round.
        ("b r c", [3, 1, 4, 2]),
    ] {
        let mut state = state();
        press(&mut state, keys);
        assert_eq!(ids(&state), order, "{keys}");
    }
}

#[test]
fn the_filter_lets_names_through() {
    for (keys, left, typing) in [
        ("/ shop", vec![1, 2], true),
        ("/ web", vec![1], true),
        ("/ WEB enter", vec![1], false),
        ("/ :ht enter", vec![1, 4], false),
        ("/ shopx", vec![], true),
        ("/ shopx back", vec![1, 2], true),
        ("/ shop esc", vec![3, 1, 4, 2], false),
        ("/ shop enter esc", vec![3, 1, 4, 2], false),
        // While it is typed letters are letters, and q is none that ends.
        ("/ q", vec![], true),
    ] {
        let mut state = state();
        let todo = press(&mut state, keys);
        assert_eq!((ids(&state), state.typing), (left, typing), "{keys}");
        assert!(todo.iter().all(|todo| *todo == Todo::Draw), "{keys}");
    }
}

#[test]
fn the_choice_stays_with_its_row() {
    for (keys, id) in [
        ("up", 3),
        ("down", 1),
        ("down down down down down", 2),
        ("end", 2),
        ("end up", 4),
        ("end home", 3),
        // By bytes it is the last one, and is still chosen.
        ("down down b", 4),
        // What is first is looked at, whichever it is.
        ("b", 1),
        ("down up b", 1),
        // What the filter hides is not chosen.
        ("down / default", 3),
        ("down / default esc", 1),
    ] {
        let mut state = state();
        press(&mut state, keys);
        assert_eq!(chosen(&state), Some(id), "{keys}");
    }
    let mut none = State::default();
    press(&mut none, "down end enter up");
    assert_eq!((chosen(&none), none.screen.view), (None, View::Services));
}

#[test]
fn a_service_is_entered_and_left() {
    let mut state = state();
    press(&mut state, "/ shop enter down");
    assert_eq!(press(&mut state, "enter"), [Todo::Read]);
    let view = View::Backends {
        id: 2,
        name: "shop/cart:grpc".into(),
    };
    assert_eq!((&state.screen.view, ids(&state)), (&view, vec![]));
    assert_eq!(state.screen.filter, "");
    read_twice(&mut state);
    // There is nothing below a backend.
    assert_eq!(press(&mut state, "down enter"), [Todo::Draw, Todo::Draw]);
    assert_eq!(press(&mut state, "/ x esc esc").last(), Some(&Todo::Read));
    assert_eq!(state.screen.view, View::Services);
    // The rows of the service do not stand for services until these are read.
    assert!(ids(&state).is_empty());
    read_twice(&mut state);
    assert_eq!((ids(&state), chosen(&state)), (vec![1, 2], Some(2)));
    assert_eq!(press(&mut state, "esc esc"), [Todo::Draw, Todo::Draw]);
}

#[test]
fn rates_do_not_span_views() {
    let mut state = state();
    assert!(state.rows().iter().all(|row| row.rates.is_some()));
    assert_eq!(press(&mut state, "tab"), [Todo::Read]);
    assert_eq!(state.screen.view, View::Node);
    assert_eq!(press(&mut state, "tab"), [Todo::Read]);
    let first = state.take(Reading {
        at: Duration::from_secs(9),
        seen: Seen::Counted(vec![Counted {
            id: 1,
            name: "x".into(),
            part: None,
            counter: ServiceCounter::default(),
        }]),
        note: None,
    });
    assert!(first && state.rows()[0].rates.is_none());
}

#[test]
fn keys_that_end_it_end_it() {
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(press(&mut state(), "q"), [Todo::Quit]);
    let mut typing = state();
    press(&mut typing, "/ sh");
    for (c, todo) in [('c', Todo::Quit), ('d', Todo::Quit), ('a', Todo::Draw)] {
        assert_eq!(state().key(control(c)), todo, "{c}");
        assert_eq!(typing.key(control(c)), todo, "{c}");
    }
    assert_eq!(typing.screen.filter, "sh");
}
