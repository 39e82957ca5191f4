//! Traffic: a worker at each place, and the rounds of requests to them.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

use super::check::Tally;
use super::client::{Report, Request};
use super::netns::spawn;
use super::rows::{Expect, Row, RowKey};
use super::topology::Place;
use super::world::Lab;
use super::{signals, stats, web};

/// Connections of a row whose clients are to be refused or dropped: they all end the same
/// way, and those that are dropped take their whole time.
const FEW: u32 = 8;
/// Milliseconds after which a connection that should succeed has failed. A lost SYN is sent
/// again after a second, which is slow and no failure.
const PATIENT_MS: u64 = 2500;
/// Milliseconds after which a connection that should get no answer has got none.
const BRIEF_MS: u64 = 400;

/// Rows without any answer after which the others get the brief time as well, so that a lab
/// in which nothing works says so soon.
const SILENT_ROWS: u32 = 5;

/// The workers.
#[derive(Debug)]
pub(crate) struct Workers {
    at: BTreeMap<Place, Worker>,
    /// Rows in a row that should have been answered and were not at all.
    silent: u32,
    /// The cgroup of clients outside.
    outside: PathBuf,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

impl Workers {
    /// Starts one at each place.
    ///
    /// # Errors
    /// One cannot be started.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let mut workers = BTreeMap::new();
        for place in Place::ALL {
            let mut command = Command::new("/proc/self/exe");
            command
                .arg("lab-client")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut child = spawn(command, &place.netns(), &lab.cgroup(&place.cgroup()))?;
            let requests = child.stdin.take();
            let reports = BufReader::new(child.stdout.take().context("a client has no output")?);
            workers.insert(
                place,
                Worker {
                    child,
                    requests,
                    reports,
                },
            );
        }
        Ok(Self {
            at: workers,
            silent: 0,
            outside: lab.cgroup(&Place::Outside.cgroup()),
        })
    }

    /// Has the connections of one row opened.
    ///
    /// # Errors
    /// The worker ended, or a signal came.
    pub(crate) fn send(&mut self, row: &Row, connections: u32) -> Result<Report> {
        if let Some(ask) = &row.key.ask {
            return web::send(&row.key, ask, connections, &self.outside);
        }
        let brief = matches!(row.expect, Expect::Refused | Expect::Dropped);
        let impatient = row.expect == Expect::Dropped || self.silent >= SILENT_ROWS;
        let request = Request {
            target: row.key.target,
            proto: row.key.proto.to_string(),
            connections: if brief {
                connections.min(FEW)
            } else {
                connections
            },
            timeout_ms: if impatient { BRIEF_MS } else { PATIENT_MS },
            connected: brief,
        };
        let place = row.key.place;
        let worker = self.at.get_mut(&place).context("there is no such place")?;
        let report = worker
            .ask(&request)
            .with_context(|| format!("the client at {} ended", place.label()))?;
        if !report.backends.is_empty() {
            self.silent = 0;
        } else if !brief {
            self.silent += 1;
        }
        Ok(report)
    }
}

impl Worker {
    fn ask(&mut self, request: &Request) -> Result<Report> {
        let line = serde_json::to_string(request)? + "\n";
        self.requests
            .as_mut()
            .context("its input is closed")?
            .write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.reports.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("no report: {answer:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input ends it; it may be waiting for an answer, though.
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows, and what happened in each so far.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// The rows, in the order of the table.
    pub rows: Vec<Row>,
    /// Services without a frontend.
    pub skipped: Vec<String>,
    tallies: HashMap<RowKey, Tally>,
}

impl Board {
    /// Takes over new rows: what happened before counts for those that stayed the same. With
    /// that, the names of the services that changed.
    pub(crate) fn update(&mut self, rows: Vec<Row>, skipped: Vec<String>) -> Vec<String> {
        let gone: Vec<&Row> = self.rows.iter().filter(|r| !rows.contains(r)).collect();
        let come: Vec<&Row> = rows.iter().filter(|r| !self.rows.contains(r)).collect();
        let mut changed: Vec<String> = gone
            .iter()
            .chain(&come)
            .map(|r| r.key.service.clone())
            .collect();
        for row in gone {
            self.tallies.remove(&row.key);
        }
        changed.sort();
        changed.dedup();
        self.rows = rows;
        self.skipped = skipped;
        changed
    }

    /// The table's lines.
    pub(crate) fn lines(&self) -> Vec<(&Row, &Tally)> {
        static NOTHING: std::sync::OnceLock<Tally> = std::sync::OnceLock::new();
        let nothing = NOTHING.get_or_init(Tally::default);
        self.rows
            .iter()
            .map(|r| (r, self.tallies.get(&r.key).unwrap_or(nothing)))
            .collect()
    }

    /// Sends a round: `connections` for each row, one row after the other, so that what the
    /// programs ran for can be told apart. `each` is called after every row.
    ///
    /// # Errors
    /// A client ended, a signal came, or `each` failed.
    pub(crate) fn round(
        &mut self,
        workers: &mut Workers,
        agents: &[u32],
        connections: u32,
        mut each: impl FnMut(&Self) -> Result<()>,
    ) -> Result<()> {
        let _statistics = stats::Enabled::new();
        for i in 0..self.rows.len() {
            signals::check()?;
            let row = &self.rows[i];
            let before = stats::totals(agents);
            let report = workers.send(row, connections)?;
            let after = stats::totals(agents);
            let programs = (
                after.0.saturating_sub(before.0),
                after.1.saturating_sub(before.1),
            );
            self.tallies
                .entry(row.key.clone())
                .or_default()
                .add(&report, programs);
            each(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::rows::{Kind, Proto};
    use super::*;

    fn row(port: u16, pods: &[&str]) -> Row {
        let key = RowKey {
            service: format!("default/s{port}"),
            kind: Kind::ClusterIp,
            ask: None,
            proto: Proto::Tcp,
            target: ([10, 96, 0, 1], port).into(),
            place: Place::Pod,
        };
        let expect = Expect::Spread(
            pods.iter()
                .map(|p| (*p).to_owned())
                .collect::<BTreeSet<_>>(),
        );
        Row {
            key,
            expect,
            client: None,
        }
    }

    #[test]
    fn a_changed_row_starts_anew_and_the_others_go_on() {
        let mut board = Board::default();
        assert_eq!(
            board.update(vec![row(1, &["a"]), row(2, &["a"])], Vec::new()),
            ["default/s1", "default/s2"]
        );
        let report = Report {
            backends: BTreeMap::from([("a".to_owned(), 5)]),
            ..Report::default()
        };
        for row in board.rows.clone() {
            board
                .tallies
                .entry(row.key)
                .or_default()
                .add(&report, (0, 0));
        }
        let changed = board.update(vec![row(1, &["a"]), row(2, &["a", "b"])], Vec::new());
        assert_eq!(changed, ["default/s2"]);
        let counts: Vec<u64> = board.lines().iter().map(|(_, t)| t.answered()).collect();
        assert_eq!(counts, [5, 0]);
    }
}
