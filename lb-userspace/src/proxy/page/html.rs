//! The status page as HTML: one document, without scripts, images or anything from elsewhere.

use std::{
    fmt::{self, Display, Write},
    sync::LazyLock,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::{CertificateRow, HostRow, PathRow, Status, TroubleRow, UpstreamRow};
use crate::http::Answer;

/// Rows of a part of the page. There are as many as there are in `/status.json`.
pub(super) const ROWS: usize = 500;
/// Paths of the hosts on the page.
const PATHS: usize = 4 * ROWS;
/// Endpoints of an upstream that are named.
const ENDPOINTS: usize = 8;
const STYLE: &str = include_str!("style.css");

/// What a browser may do with the page: nothing but show it.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let sum = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{sum}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
});

/// Text, so that it is nothing but text: between tags, and between quotes.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for char in text.chars() {
                    match char {
                        '<' => self.0.write_str("&lt;")?,
                        '>' => self.0.write_str("&gt;")?,
                        '&' => self.0.write_str("&amp;")?,
                        '"' => self.0.write_str("&quot;")?,
                        '\'' => self.0.write_str("&#39;")?,
                        // What turns the direction of text could make it look like another.
                        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                            self.0.write_char(char::REPLACEMENT_CHARACTER)?;
                        }
                        char => self.0.write_char(char)?,
                    }
                }
                Ok(())
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}

/// The page, with what a browser has to know of it.
pub fn answer(status: &Status) -> Answer {
    let header = |name, value: &str| (name, value.to_owned());
    Answer {
        status: 200,
        content_type: "text/html; charset=utf-8",
        headers: vec![
            header("content-security-policy", &POLICY),
            header("x-content-type-options", "nosniff"),
            header("referrer-policy", "no-referrer"),
            header("cache-control", "no-store"),
        ],
        body: page(status),
    }
}

/// The page.
pub(super) fn page(status: &Status) -> String {
    let mut out = String::new();
    // A String takes everything.
    let _ = write_page(&mut out, status);
    out
}

fn write_page(out: &mut String, status: &Status) -> fmt::Result {
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Bascule proxy</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>{STYLE}</style>\n</head>\n<body>"
    )?;
    write_head(out, status)?;
    out.push_str("<main>\n");
    write_sources(out, status)?;
    let (troubles, certificates) = (status.troubles.len(), status.certificates.len());
    section(out, ("troubles", "Troubles", troubles), |out| {
        write_troubles(out, status)
    })?;
    section(out, ("certificates", "Certificates", certificates), |out| {
        write_certificates(out, status)
    })?;
    section(out, ("hosts", "Hosts", status.hosts.len()), |out| {
        write_hosts(out, status)
    })?;
    section(
        out,
        ("upstreams", "Upstreams", status.upstreams.len()),
        |out| write_upstreams(out, status),
    )?;
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

/// A part of the page: its id, its title, and how many rows there are of it.
fn section(
    out: &mut String,
    (id, title, count): (&str, &str, usize),
    rows: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    writeln!(
        out,
        "<section id=\"{id}\">\n<h2>{title} <span>{count}</span></h2>"
    )?;
    match count {
        0 => out.push_str("<p class=\"none\">None.</p>\n"),
        _ => rows(out)?,
    }
    if count > ROWS {
        let more = count - ROWS;
        let all = "<a href=\"/status.json\">status.json</a>";
        writeln!(
            out,
            "<p class=\"none\">And {more} more: all are in {all}.</p>"
        )?;
    }
    out.push_str("</section>\n");
    Ok(())
}

fn write_head(out: &mut String, status: &Status) -> fmt::Result {
    let (class, word) = match status.ready {
        true => ("good", "serves"),
        false => ("bad", "does not serve"),
    };
    write!(
        out,
        "<header>\n<h1>Bascule proxy</h1>\n<p><span class=\"state {class}\">{word}</span> \
         version {}",
        Text(status.version)
    )?;
    if let Some(since) = &status.since {
        write!(out, ", table {} since {}", status.table, Text(since))?;
    }
    out.push_str("</p>\n<ul class=\"numbers\">\n");
    let paths: usize = status.hosts.iter().map(|host| host.paths.len()).sum();
    let is_empty = |row: &&UpstreamRow| row.endpoints.is_empty() && row.dns.is_none();
    let empty = status.upstreams.iter().filter(is_empty).count();
    let ending = status.certificates.iter();
    let ending = ending.filter(|row| !matches!(row.state, "good" | "other"));
    for (target, name, number) in [
        ("hosts", "hosts", status.hosts.len() as u64),
        ("hosts", "paths", paths as u64),
        ("upstreams", "upstreams without an endpoint", empty as u64),
        (
            "certificates",
            "certificates that end soon",
            ending.count() as u64,
        ),
        ("troubles", "troubles", status.troubles.len() as u64),
        ("top", "connections", status.connections),
        ("top", "requests", status.requests),
    ] {
        writeln!(
            out,
            "<li><a href=\"#{target}\"><b>{number}</b> {name}</a></li>"
        )?;
    }
    out.push_str("</ul>\n</header>\n");
    Ok(())
}

fn write_sources(out: &mut String, status: &Status) -> fmt::Result {
    for source in &status.sources {
        let (place, message) = (Text(&source.place), Text(&source.message));
        writeln!(
            out,
            "<p class=\"alert\"><b>{place}</b> cannot be read: {message}. What was known stays in force.</p>"
        )?;
    }
    Ok(())
}

/// Begins a table.
fn begin(out: &mut String, columns: &[&str]) -> fmt::Result {
    out.push_str("<table>\n<thead><tr>");
    for column in columns {
        write!(out, "<th scope=\"col\">{column}</th>")?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    Ok(())
}

fn end(out: &mut String) {
    out.push_str("</tbody>\n</table>\n");
}

/// A cell: its column, as narrow screens name it, and its content, which is escaped already.
fn cell(out: &mut String, column: &str, content: impl Display) -> fmt::Result {
    write!(out, "<td data-column=\"{column}\">{content}</td>")
}

fn write_troubles(out: &mut String, status: &Status) -> fmt::Result {
    begin(out, &["Object", "Severity", "Reason", "What is wrong"])?;
    for row in status.troubles.iter().take(ROWS) {
        let TroubleRow {
            object,
            severity,
            reason,
            message,
        } = row;
        let class = match *severity {
            "denied" | "refused" => "bad",
            "warning" => "soon",
            _ => "quiet",
        };
        out.push_str("<tr>");
        cell(out, "Object", Text(object))?;
        let state = format!("<span class=\"state {class}\">{severity}</span>");
        cell(out, "Severity", state)?;
        cell(out, "Reason", Text(reason))?;
        cell(out, "What is wrong", Text(message))?;
        out.push_str("</tr>\n");
    }
    end(out);
    Ok(())
}

fn write_certificates(out: &mut String, status: &Status) -> fmt::Result {
    begin(out, &["Host", "Secret", "State", "Ends", "Names", "Issuer"])?;
    for row in status.certificates.iter().take(ROWS) {
        out.push_str("<tr>");
        cell(out, "Host", host(&row.host))?;
        cell(
            out,
            "Secret",
            Text(row.secret.as_deref().unwrap_or("default")),
        )?;
        cell(out, "State", state_of(row))?;
        cell(out, "Ends", Text(row.not_after.as_deref().unwrap_or("–")))?;
        cell(out, "Names", Text(row.names.join(", ")))?;
        cell(out, "Issuer", Text(row.issuer.as_deref().unwrap_or("–")))?;
        out.push_str("</tr>\n");
    }
    end(out);
    Ok(())
}

fn state_of(row: &CertificateRow) -> String {
    let days = row.days.unwrap_or_default();
    let (class, words) = match row.state {
        "broken" => ("bad", "handshakes are refused".to_owned()),
        "expired" => ("bad", format!("has ended {} ago", in_days(-days))),
        "soon" => ("soon", format!("ends in {}", in_days(days))),
        "other" => ("soon", "is not for this host".to_owned()),
        _ => ("good", format!("ends in {}", in_days(days))),
    };
    let mut out = format!("<span class=\"state {class}\">{words}</span>");
    if let Some(error) = &row.error {
        // A String takes everything.
        let _ = write!(out, " {}", Text(error));
    }
    out
}

fn in_days(days: i64) -> String {
    match days {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// The name of a host; every host has a word for it.
fn host(name: &str) -> String {
    match name {
        "_" => "<i>every host</i>".to_owned(),
        name => format!("<code>{}</code>", Text(name)),
    }
}

fn write_hosts(out: &mut String, status: &Status) -> fmt::Result {
    let columns = ["Path", "Type", "Backend", "Endpoints", "Ingress"];
    begin(out, &columns)?;
    let mut room = PATHS;
    for row in status.hosts.iter().take(ROWS) {
        let HostRow { name, note, paths } = row;
        let note = note.as_deref().unwrap_or_default();
        writeln!(
            out,
            "<tr class=\"group\"><th colspan=\"5\" scope=\"rowgroup\">{} <small>{}</small></th></tr>",
            host(name),
            Text(note)
        )?;
        for path in paths.iter().take(room) {
            write_path(out, path, columns)?;
        }
        let more = paths.len().saturating_sub(room);
        if more > 0 {
            writeln!(out, "<tr><td colspan=\"5\">{more} more</td></tr>")?;
        }
        room = room.saturating_sub(paths.len());
    }
    end(out);
    Ok(())
}

fn write_path(out: &mut String, row: &PathRow, columns: [&str; 5]) -> fmt::Result {
    out.push_str("<tr>");
    let [path, kind, backend, endpoints, ingress] = columns;
    cell(out, path, format_args!("<code>{}</code>", Text(&row.path)))?;
    cell(out, kind, row.kind)?;
    let mut to = match row.backend.is_empty() {
        true => "none: 404".to_owned(),
        false => Text(&row.backend).to_string(),
    };
    if let Some(canary) = &row.canary {
        write!(to, "<br><small>canary {}</small>", Text(canary))?;
    }
    if let Some(denied) = &row.denied {
        write!(
            to,
            "<br><span class=\"state bad\">503</span> {}",
            Text(denied)
        )?;
    }
    cell(out, backend, to)?;
    let count = match row.endpoints {
        Some(0) => "<span class=\"state bad\">0</span>".to_owned(),
        Some(count) => count.to_string(),
        None => "–".to_owned(),
    };
    cell(out, endpoints, count)?;
    cell(out, ingress, Text(&row.ingress))?;
    out.push_str("</tr>\n");
    Ok(())
}

fn write_upstreams(out: &mut String, status: &Status) -> fmt::Result {
    begin(out, &["Name", "Service", "Endpoints"])?;
    for row in status.upstreams.iter().take(ROWS) {
        out.push_str("<tr>");
        cell(out, "Name", Text(&row.name))?;
        cell(out, "Service", Text(&row.backend))?;
        let endpoints = match (&row.dns, row.endpoints.len()) {
            (Some(name), _) => format!("those of <code>{}</code>", Text(name)),
            (None, 0) => "<span class=\"state bad\">none</span>".to_owned(),
            (None, count) => {
                let named = &row.endpoints[..count.min(ENDPOINTS)];
                let more = match count > ENDPOINTS {
                    true => format!(" and {} more", count - ENDPOINTS),
                    false => String::new(),
                };
                format!("{}{more}", Text(named.join(", ")))
            }
        };
        cell(out, "Endpoints", endpoints)?;
        out.push_str("</tr>\n");
    }
    end(out);
    Ok(())
}
