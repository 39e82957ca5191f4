//! The report as text. Pure.

use crate::{
    cli::text::{Mood, paint},
    proxy::migrate::{Finding, Report, Summary, Verdict},
};

/// Width of the column of verdicts.
const WIDTH: usize = 9;

/// The report, the worst first.
pub(super) fn render(report: &Report, colour: bool) -> String {
    let text = Text { report, colour };
    let mut out = text.head();
    out.push('\n');
    text.config(&mut out);
    text.ingresses(&mut out);
    out
}

struct Text<'r> {
    report: &'r Report,
    colour: bool,
}

impl Text<'_> {
    /// A verdict, as wide as its column.
    fn verdict(&self, verdict: Verdict) -> String {
        let mood = match verdict {
            Verdict::Alike => Mood::Good,
            Verdict::Differs | Verdict::Wrong => Mood::Warn,
            Verdict::Refused | Verdict::Denied => Mood::Bad,
        };
        let name = verdict.name();
        let blanks = " ".repeat(WIDTH - name.len());
        paint(name, mood, self.colour) + &blanks
    }

    /// How many become what, and what that means.
    fn head(&self) -> String {
        let report = self.report;
        let count = |verdict| self.count(&report.summary, verdict);
        let total = report.summary.ingresses;
        let s = if total == 1 { "" } else { "es" };
        let counts: Vec<String> = Verdict::ALL.into_iter().filter_map(count).collect();
        let mut out = match counts.is_empty() {
            true => "0 Ingresses of ingress-nginx\n".to_owned(),
            false => format!(
                "{total} Ingress{s} of ingress-nginx: {}\n",
                counts.join(", ")
            ),
        };
        let mut there: Vec<Verdict> = report.ingresses.iter().map(|one| one.verdict).collect();
        there.push(report.config.verdict);
        for verdict in Verdict::ALL.into_iter().filter(|v| there.contains(v)) {
            out.push_str(&format!(
                "  {}{}\n",
                self.verdict(verdict),
                meaning(verdict)
            ));
        }
        match report.summary.others {
            0 => {}
            1 => out.push_str("1 Ingress of another class is left out.\n"),
            n => out.push_str(&format!("{n} Ingresses of other classes are left out.\n")),
        }
        for unread in &report.unread {
            let word = paint("Not read", Mood::Bad, self.colour);
            out.push_str(&format!("{word}: {unread}\n"));
        }
        out.push_str(&self.unchecked());
        out
    }

    fn count(&self, summary: &Summary, verdict: Verdict) -> Option<String> {
        let number = match verdict {
            Verdict::Alike => summary.alike,
            Verdict::Differs => summary.differs,
            Verdict::Wrong => summary.wrong,
            Verdict::Refused => summary.refused,
            Verdict::Denied => summary.denied,
        };
        let word = match (verdict, number) {
            (_, 0) => return None,
            (Verdict::Differs, 2..) => "differ",
            (verdict, _) => verdict.name(),
        };
        Some(format!("{number} {word}"))
    }

    fn unchecked(&self) -> String {
        let optional = ["Service", "Secret", "ConfigMap"];
        let absent = |kind: &&str| self.report.unchecked.contains(kind);
        let kinds: Vec<String> = optional
            .iter()
            .filter(|k| absent(k))
            .map(|k| format!("{k}s"))
            .collect();
        let mut out = String::new();
        if !kinds.is_empty() {
            out.push_str(&format!(
                "The directory has no {}: whether those that Ingresses name are there is not told.\n",
                kinds.join(" and no ")
            ));
        }
        if absent(&"IngressClass") {
            out.push_str(
                "The directory has no IngressClasses: that of --ingress-class is taken for \
                 ingress-nginx's.\n",
            );
        }
        out
    }

    fn config(&self, out: &mut String) {
        let config = &self.report.config;
        let Some(name) = &config.config_map else {
            out.push_str(&match config.candidates.as_slice() {
                [] => "ConfigMap: none was found, so the defaults count; name it with --configmap\n".to_owned(),
                several => format!(
                    "ConfigMap: the defaults count, for it may be one of {}; name it with --configmap\n",
                    several.join(", ")
                ),
            });
            return;
        };
        out.push_str(&format!(
            "{}ConfigMap {name}\n",
            self.verdict(config.verdict)
        ));
        self.parts(&config.findings, &config.alike, out);
    }

    fn ingresses(&self, out: &mut String) {
        let mut was_block = true;
        for one in &self.report.ingresses {
            let hosts: Vec<&str> = one.hosts.iter().map(String::as_str).collect();
            let hosts = hosts.join(", ");
            // What is alike in all is a line.
            let is_block = !one.findings.is_empty();
            if is_block || std::mem::take(&mut was_block) {
                out.push('\n');
            }
            was_block = is_block;
            let line = format!("{}{}  {hosts}", self.verdict(one.verdict), one.ingress);
            out.push_str(line.trim_end());
            out.push('\n');
            if is_block {
                self.parts(&one.findings, &one.alike, out);
            }
        }
    }

    fn parts(&self, findings: &[Finding], alike: &[String], out: &mut String) {
        let indent = " ".repeat(WIDTH);
        for finding in findings {
            // What all annotations begin with says nothing.
            let message = finding
                .message
                .replace(&format!("{}/", self.report.prefix), "");
            let message: Vec<&str> = message.lines().map(str::trim).collect();
            let message = message.join(" ");
            out.push_str(&format!(
                "{indent}{}{message}\n",
                self.verdict(finding.verdict)
            ));
            for line in &finding.lines {
                let inner = " ".repeat(2 * WIDTH);
                out.push_str(&format!("{inner}{}: {}\n", line.line, line.text));
                out.push_str(&format!("{inner}→ {}\n", line.advice.sentence()));
            }
        }
        if !alike.is_empty() {
            let verdict = self.verdict(Verdict::Alike);
            out.push_str(&format!("{indent}{verdict}{}\n", alike.join(", ")));
        }
    }
}

/// What a verdict means to who moves.
fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Alike => "served as ingress-nginx serves it",
        Verdict::Differs => {
            "something has no effect, or is done a little otherwise; nothing has to be changed"
        }
        Verdict::Wrong => "as wrong with ingress-nginx",
        Verdict::Refused => {
            "something that is asked for is not done: change it before traffic moves"
        }
        Verdict::Denied => "every request is refused until it is changed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::proxy::migrate::{ConfigReport, IngressReport};

    fn report() -> Report {
        let finding = |verdict, message: &str| Finding {
            verdict,
            reason: "Reason",
            message: message.to_owned(),
            lines: Vec::new(),
        };
        let ingress = |name: &str, verdict, findings| IngressReport {
            ingress: name.to_owned(),
            hosts: BTreeSet::from(["a.example".to_owned(), "b.example".to_owned()]),
            verdict,
            findings,
            alike: vec!["app-root".to_owned()],
        };
        Report {
            version: "1",
            summary: Summary {
                ingresses: 3,
                alike: 1,
                differs: 2,
                others: 1,
                ..Summary::default()
            },
            needs_change: true,
            unread: vec!["x.yaml: no".to_owned()],
            unchecked: vec!["IngressClass", "Secret", "Service"],
            config: ConfigReport {
                config_map: None,
                candidates: vec!["a/b".to_owned(), "c/d".to_owned()],
                verdict: Verdict::Alike,
                findings: Vec::new(),
                alike: Vec::new(),
            },
            ingresses: vec![
                ingress(
                    "n/x",
                    Verdict::Differs,
                    vec![finding(Verdict::Differs, "p/q is\n  so")],
                ),
                ingress("n/y", Verdict::Alike, Vec::new()),
            ],
            prefix: "p".to_owned(),
        }
    }

    #[test]
    fn what_is_not_known_is_said_and_words_have_colours() {
        let expected = "\
3 Ingresses of ingress-nginx: 1 alike, 2 differ
  alike    served as ingress-nginx serves it
  differs  something has no effect, or is done a little otherwise; nothing has to be changed
1 Ingress of another class is left out.
Not read: x.yaml: no
The directory has no Services and no Secrets: whether those that Ingresses name are there is not told.
The directory has no IngressClasses: that of --ingress-class is taken for ingress-nginx's.

ConfigMap: the defaults count, for it may be one of a/b, c/d; name it with --configmap

differs  n/x  a.example, b.example
         differs  q is so
         alike    app-root

alike    n/y  a.example, b.example
";
        assert_eq!(render(&report(), false), expected);
        let coloured = render(&report(), true);
        assert!(
            coloured.contains("\x1b[33mdiffers\x1b[0m  n/x"),
            "{coloured}"
        );
        let mut plain = coloured;
        for code in ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, expected);
    }
}
