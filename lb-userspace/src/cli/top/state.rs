//! What is shown, in which order, and what keys do. Pure.

use std::{cmp::Ordering, net::IpAddr};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{Before, Dropped, Node, Rates, Reading, Row, Seen};

/// What is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// Every service.
    Services,
    /// The backends of a service.
    Backends {
        /// Its id.
        id: u32,
        /// Its name.
        name: String,
    },
    /// The node itself.
    Node,
}

/// What rows are ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// New connections, the most first; the same holds for the next two.
    Connections,
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
    /// Names, from A to Z.
    Name,
}

/// What there is to do after a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Todo {
    /// To draw.
    Draw,
    /// To read, because something else is looked at.
    Read,
    /// To end.
    Quit,
}

/// A view with what the user has done to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Screen {
    /// What is looked at.
    pub view: View,
    /// What the names shown have in them, in small letters.
    pub filter: String,
    /// Id of the row that was chosen.
    chosen: Option<u32>,
}

impl Screen {
    fn new(view: View) -> Self {
        Self {
            view,
            filter: String::new(),
            chosen: None,
        }
    }
}

/// What there is to show.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Services or backends.
    Rows(Vec<Row>),
    /// The node, and why it refuses and drops packets.
    Node(Box<Node>, Vec<Dropped>),
}

/// All of it.
#[derive(Clone, Debug)]
pub struct State {
    /// The view.
    pub screen: Screen,
    /// The one that it was entered from.
    under: Option<Screen>,
    /// The order of rows.
    pub by: By,
    /// Whether it is the other way round.
    pub reversed: bool,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// What the user should know.
    pub note: Option<String>,
    /// What there is to show.
    pub shown: Shown,
    /// The reading before.
    before: Option<Before>,
}

/// Rows that a page key moves by.
const PAGE: isize = 15;

/// Services by new connections; nothing has been read.
impl Default for State {
    fn default() -> Self {
        Self {
            screen: Screen::new(View::Services),
            under: None,
            by: By::Connections,
            reversed: false,
            typing: false,
            note: None,
            shown: Shown::Rows(Vec::new()),
            before: None,
        }
    }
}

impl State {
    /// Takes a reading of what is looked at; returns whether there are no rates before the
    /// next one.
    pub fn take(&mut self, reading: Reading) -> bool {
        let first = self.before.is_none();
        let before = self.before.take().unwrap_or_default();
        self.before = Some(Before::of(&reading));
        self.note = reading.note;
        self.shown = match reading.seen {
            Seen::Counted(counted) => Shown::Rows(before.rows(reading.at, &counted)),
            Seen::Node(node) => {
                let drops = before.drops(reading.at, &node.drops);
                Shown::Node(node, drops)
            }
        };
        first
    }

    /// The rows that the filter lets through, in order.
    pub fn rows(&self) -> Vec<&Row> {
        let Shown::Rows(rows) = &self.shown else {
            return Vec::new();
        };
        let mut rows: Vec<&Row> = rows.iter().filter(|row| self.lets(&row.name)).collect();
        rows.sort_by(|a, b| self.compare(a, b));
        rows
    }

    /// The clients that the filter lets through, with their flows.
    pub fn clients(&self) -> Vec<(IpAddr, u64)> {
        let Shown::Node(node, _) = &self.shown else {
            return Vec::new();
        };
        let all = node.clients.iter().copied();
        if self.screen.filter.is_empty() {
            return all.collect();
        }
        all.filter(|(client, _)| self.lets(&client.to_string()))
            .collect()
    }

    fn lets(&self, name: &str) -> bool {
        let filter = &self.screen.filter;
        filter.is_empty() || name.to_lowercase().contains(filter.as_str())
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        let names = || a.name.cmp(&b.name);
        let most = |get: fn(&Rates) -> f64| {
            let of = |row: &Row| row.rates.as_ref().map_or(-1.0, get);
            of(b).total_cmp(&of(a))
        };
        let order = match self.by {
            By::Connections => most(|r| r.connections).then_with(|| most(|r| r.packets)),
            By::Packets => most(|r| r.packets),
            By::Bytes => most(|r| r.bytes),
            By::Name => names(),
        };
        let order = if self.reversed {
            order.reverse()
        } else {
            order
        };
        order.then_with(names)
    }

    /// Place of the row that is chosen: the first one, unless the user chose another that is
    /// still there.
    pub fn place(&self, rows: &[&Row]) -> usize {
        let chosen = self.screen.chosen;
        let place = chosen.and_then(|id| rows.iter().position(|row| row.id == id));
        place.unwrap_or(0)
    }

    fn go(&mut self, by: isize) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let to = self.place(&rows).saturating_add_signed(by).min(last);
        let chosen = rows.get(to).map(|row| row.id);
        // The first place is kept as such: what rises to it is looked at.
        self.screen.chosen = chosen.filter(|_| to > 0);
    }

    fn show(&mut self, screen: Screen) -> Todo {
        self.shown = match screen.view {
            View::Node => Shown::Node(Box::default(), Vec::new()),
            View::Services | View::Backends { .. } => Shown::Rows(Vec::new()),
        };
        (self.screen, self.before) = (screen, None);
        Todo::Read
    }

    fn enter(&mut self) -> Todo {
        let rows = self.rows();
        let Some(row) = rows.get(self.place(&rows)) else {
            return Todo::Draw;
        };
        if self.screen.view != View::Services {
            return Todo::Draw;
        }
        let (id, name) = (row.id, row.name.clone());
        // What is looked at now is what one comes back to.
        self.screen.chosen = Some(id);
        self.under = Some(self.screen.clone());
        self.show(Screen::new(View::Backends { id, name }))
    }

    /// Out of the filter, and then out of the view.
    fn back(&mut self) -> Todo {
        if !self.screen.filter.is_empty() {
            self.screen.filter.clear();
            return Todo::Draw;
        }
        match self.under.take() {
            Some(screen) => self.show(screen),
            None => Todo::Draw,
        }
    }

    fn switch(&mut self) -> Todo {
        self.under = None;
        match self.screen.view {
            View::Node => self.show(Screen::new(View::Services)),
            View::Services | View::Backends { .. } => self.show(Screen::new(View::Node)),
        }
    }

    fn order(&mut self, by: By) -> Todo {
        (self.by, self.reversed) = (by, false);
        Todo::Draw
    }

    fn type_on(&mut self, key: KeyCode) -> Todo {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.screen.filter.clear();
            }
            KeyCode::Backspace => {
                self.screen.filter.pop();
            }
            KeyCode::Char(c) => self.screen.filter.extend(c.to_lowercase()),
            _ => {}
        }
        Todo::Draw
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Todo {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Todo::Quit,
            _ if control => return Todo::Draw,
            code if self.typing => return self.type_on(code),
            KeyCode::Char('q') => return Todo::Quit,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter => return self.enter(),
            KeyCode::Esc | KeyCode::Backspace => return self.back(),
            KeyCode::Tab => return self.switch(),
            KeyCode::Char('c') => return self.order(By::Connections),
            KeyCode::Char('p') => return self.order(By::Packets),
            KeyCode::Char('b') => return self.order(By::Bytes),
            KeyCode::Char('n') => return self.order(By::Name),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-PAGE),
            KeyCode::PageDown => self.go(PAGE),
            KeyCode::Home => self.go(isize::MIN),
            KeyCode::End => self.go(isize::MAX),
            _ => {}
        }
        Todo::Draw
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
