//! Requests to Ingresses, by curl at the place of a row: TLS and names are as a client has them.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::client::Report;
use super::l7::certificates;
use super::netns::spawn;
use super::rows::{Ask, RowKey};
use super::server::Answer;
use super::signals;

/// What a line of curl begins with that says how a request went: no body has it.
const MARK: &str = "@curl ";

/// Asks so many times, each on a connection of its own.
///
/// # Errors
/// curl cannot be started, or a signal came.
pub(crate) fn send(key: &RowKey, ask: &Ask, requests: u32, cgroup: &Path) -> Result<Report> {
    let mut curl = curl(key, ask);
    curl.arg(format!("{}?request=[1-{requests}]", ask.url))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let child = spawn(curl, &key.place.netns(), cgroup)
        .context("requests are sent by curl: is it installed?")?;
    let output = child.wait_with_output().context("cannot wait for curl")?;
    signals::check()?;
    Ok(report(&String::from_utf8_lossy(&output.stdout), &ask.path))
}

/// A curl that dials a row's address for the name in the URL, which is the last argument.
fn curl(key: &RowKey, ask: &Ask) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--fail-early"])
        .args(["--connect-timeout", "2", "--max-time", "5"])
        .args(["--header", "connection: close"])
        .args([
            "--write-out",
            &format!("\n{MARK}%{{http_code}} %{{time_total}} %{{errormsg}}\n"),
        ])
        .args(resolve(key, ask))
        .arg("--cacert")
        .arg(certificates());
    curl
}

/// The arguments that lead curl to a row's address.
pub(crate) fn resolve(key: &RowKey, ask: &Ask) -> [String; 2] {
    let host = ask.url.split('/').nth(2).unwrap_or_default();
    let target = key.target;
    let place = format!("{host}:{}:{}", target.port(), target.ip());
    ["--resolve".to_owned(), place]
}

/// What curl printed of all requests, of which pods should have been asked for `path`.
fn report(text: &str, path: &str) -> Report {
    let (mut report, mut times) = (Report::default(), Vec::new());
    let mut answer: Option<Answer> = None;
    for line in text.lines() {
        let Some(how) = line.strip_prefix(MARK) else {
            answer = serde_json::from_str(line).ok().or(answer);
            continue;
        };
        let mut words = how.splitn(3, ' ');
        let status = words.next().unwrap_or_default();
        let seconds: f64 = words
            .next()
            .and_then(|s| s.parse().ok())
            .unwrap_or_default();
        match judge(
            status,
            words.next().unwrap_or_default(),
            answer.take(),
            path,
        ) {
            Ok((pod, client)) => {
                *report.backends.entry(pod).or_default() += 1;
                report.clients.insert(client);
            }
            Err(kind) => *report.errors.entry(kind).or_default() += 1,
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "curl gives up after seconds"
        )]
        times.push((seconds * 1e6) as u64);
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied();
    report.p50_us = at(50).unwrap_or_default();
    report.p99_us = at(99).unwrap_or_default();
    report
}

/// The pod that answered, and the client that it was told of; else what is wrong.
fn judge(
    status: &str,
    message: &str,
    answer: Option<Answer>,
    path: &str,
) -> Result<(String, IpAddr), String> {
    match (status, answer) {
        ("200", Some(answer)) => {
            let proxied = answer.proxied.ok_or("the pod was not told of the client")?;
            if proxied.path != path {
                return Err(format!("the pod was asked for {}", proxied.path));
            }
            Ok((answer.pod, proxied.client))
        }
        ("308", _) => Err("redirected".to_owned()),
        ("000", _) => Err(message.to_owned()),
        (status, _) => Err(format!("status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"pod":"n1-a","client":"10.244.2.4:5","proxied":{"client":"172.31.0.100","path":"/posts"}}"#;

    #[test]
    fn answers_are_counted_by_their_pod_and_the_rest_by_what_it_is() {
        let text = format!(
            "{GOOD}\n\n@curl 200 0.002 \n{GOOD}\n\n@curl 200 0.004 \n<html>\n@curl 308 0.001 \n\n@curl 503 0.001 \n\n\
             @curl 000 0.001 SSL certificate problem: self-signed certificate\n"
        );
        let report = report(&text, "/posts");
        assert_eq!(report.backends.get("n1-a"), Some(&2));
        let kinds: Vec<_> = report.errors.keys().map(String::as_str).collect();
        assert_eq!(
            kinds,
            [
                "SSL certificate problem: self-signed certificate",
                "redirected",
                "status 503"
            ]
        );
        assert!(report.clients.contains(&"172.31.0.100".parse().unwrap()));
        assert_eq!((report.p50_us, report.p99_us), (1000, 4000));
    }

    #[test]
    fn a_pod_that_is_asked_for_another_path_is_an_error() {
        let report = report(&format!("{GOOD}\n\n@curl 200 0.002 \n"), "/blog");
        assert_eq!(report.errors.get("the pod was asked for /posts"), Some(&1));
        assert!(report.backends.is_empty());
    }
}
