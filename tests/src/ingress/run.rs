//! Runs files of cases, each on a proxy in a network namespace of its own.

use std::{collections::BTreeMap, io, path::Path, thread, time::Duration, time::Instant};

use serde_json::{Value, json};

use super::{
    ask::Ask,
    case::{self, Case, File},
    certificates::Certificates,
    client::{Answer, Way},
    proxy::Proxy,
    services,
};
use crate::e2e::netns::Netns;

/// Where the proxy serves, and where its clients are, unless they say otherwise.
const PROXY: [u8; 4] = [10, 79, 0, 1];

fn manifests(file: &File, cases: &[Case], certificates: &Certificates) -> String {
    let mut all = services::manifests();
    all.extend(certificates.secrets());
    all.extend(file.objects.iter().cloned());
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "default"}, "data": file.config,
    }));
    let cases = cases.iter().enumerate();
    all.extend(cases.flat_map(|(number, case)| case.manifests(number)));
    let documents = all.iter().map(Value::to_string);
    documents.collect::<Vec<_>>().join("\n---\n")
}

/// What the requests of a case have in common.
struct Session<'s> {
    host: String,
    proxy: &'s Proxy,
    certificates: &'s Certificates,
    /// Cookies that answers have set, as a client sends them.
    jar: BTreeMap<String, String>,
    /// Who answered last.
    last: Option<String>,
}

impl Session<'_> {
    fn keep(&mut self, answer: &Answer) {
        for cookie in answer.header("set-cookie") {
            let pair = cookie
                .split(';')
                .next()
                .and_then(|pair| pair.split_once('='));
            if let Some((name, value)) = pair {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn send(&self, asked: &Ask) -> (io::Result<Answer>, Duration) {
        let cookies = self.jar.iter();
        let cookies: Vec<_> = cookies
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let (head, body) = asked.request(&self.host, &cookies.join("; "));
        let host = asked.host(&self.host);
        let bare = host.split(':').next().unwrap_or_default();
        let name = asked.sni.clone().unwrap_or_else(|| bare.to_owned());
        let way = Way {
            to: match asked.https {
                true => self.proxy.https,
                false => self.proxy.http,
            },
            from: asked.from,
            before: asked.before.clone(),
            tls: asked
                .https
                .then(|| (self.certificates.client(asked.shows.as_deref()), name)),
        };
        let begun = Instant::now();
        let answer = way.ask(&head, &body, self.certificates);
        (answer, begun.elapsed())
    }

    fn answers(&mut self, asked: &Ask) -> Vec<(io::Result<Answer>, Duration)> {
        thread::sleep(Duration::from_millis(asked.wait));
        if asked.at_once {
            let this = &*self;
            return thread::scope(|scope| {
                let all: Vec<_> = (0..asked.times)
                    .map(|_| scope.spawn(move || this.send(asked)))
                    .collect();
                let all = all.into_iter();
                all.map(|one| one.join().expect("it does not panic"))
                    .collect()
            });
        }
        let mut all = Vec::new();
        for _ in 0..asked.times {
            let answer = self.send(asked);
            if let (Ok(answer), _) = &answer {
                self.keep(answer);
            }
            all.push(answer);
        }
        all
    }

    /// What is not as expected.
    fn step(&mut self, asked: &Ask) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut found = Found::default();
        for (answer, took) in self.answers(asked) {
            let took = took.as_millis() as u64;
            if let Some((from, to)) = asked.took
                && !(from..=to).contains(&took)
            {
                wrong.push(format!("it took {took} ms, not {from} to {to}"));
            }
            match answer {
                Ok(answer) if asked.ends => {
                    wrong.push(format!("status {}, not an end", answer.status));
                }
                Ok(answer) => {
                    wrong.extend(asked.differences(&answer));
                    found.add(&answer);
                }
                Err(_) if asked.ends => {}
                Err(error) => wrong.push(format!("no answer: {error}")),
            }
        }
        wrong.extend(found.differences(asked, self.last.as_ref()));
        self.last = found.backends.into_keys().next();
        wrong
    }
}

/// What several answers are together.
#[derive(Default)]
struct Found {
    backends: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
}

impl Found {
    fn add(&mut self, answer: &Answer) {
        if let Some(seen) = answer.seen() {
            *self.backends.entry(seen.backend).or_default() += 1;
        }
        *self.statuses.entry(answer.status).or_default() += 1;
    }

    fn differences(&self, asked: &Ask, last: Option<&String>) -> Vec<String> {
        let Self { backends, statuses } = self;
        let mut wrong = Vec::new();
        for (backend, (from, to)) in &asked.spread {
            let got = backends.get(backend).copied().unwrap_or_default();
            if !(*from..=*to).contains(&got) {
                wrong.push(format!("{backend}: {from} to {to}, of {backends:?}"));
            }
        }
        for (status, (from, to)) in &asked.statuses {
            let got = statuses.get(status).copied().unwrap_or_default();
            if !(*from..=*to).contains(&got) {
                wrong.push(format!("{status}: {from} to {to}, of {statuses:?}"));
            }
        }
        if (asked.same || asked.stays) && backends.len() != 1 {
            wrong.push(format!("not one backend: {backends:?}"));
        }
        if asked.stays && backends.keys().next() != last {
            wrong.push(format!("not {last:?}: {backends:?}"));
        }
        wrong
    }
}

fn run(case: &Case, number: usize, proxy: &Proxy, certificates: &Certificates) -> Vec<String> {
    let mut session = Session {
        host: Case::host(number),
        proxy,
        certificates,
        jar: BTreeMap::new(),
        last: None,
    };
    let steps = case.ask.iter().enumerate();
    let wrong = steps.flat_map(|(step, ask)| {
        let wrong = session.step(ask).into_iter();
        wrong.map(move |what| format!("{number}, {}, request {step}: {what}", case.case))
    });
    wrong.collect()
}

/// Runs the cases of a file, each with a host of its own, on one proxy.
///
/// # Panics
/// Something is not as expected.
pub fn check(dir: &Path, name: &str) {
    let (file, cases) = case::read(&dir.join(name));
    let stem = name.trim_end_matches(".yaml");
    let netns = Netns::new(&format!("ingress-{}-{stem}", std::process::id()));
    netns.ip("addr add 10.79.0.1/16 dev lo\n");
    let certificates = Certificates::new();
    let wrong = netns.inside(|| {
        services::serve(&certificates);
        let mut flags = vec!["--configmap", "default/settings"];
        if file.default_backend {
            flags.extend(["--default-backend-service", "default/errors"]);
        }
        flags.extend(file.flags.iter().map(String::as_str));
        let proxy = Proxy::start(PROXY, &manifests(&file, &cases, &certificates), &flags);
        let numbered = cases.iter().enumerate();
        let wrong = numbered.flat_map(|(number, case)| run(case, number, &proxy, &certificates));
        let wrong: Vec<_> = wrong.collect();
        if !wrong.is_empty() {
            eprintln!("the proxy's log:\n{}", proxy.log());
        }
        wrong
    });
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} of {name}:\n{}", wrong.join("\n"));
}
