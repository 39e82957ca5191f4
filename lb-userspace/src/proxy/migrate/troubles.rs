//! What a trouble means to who comes from ingress-nginx.

use std::collections::{BTreeMap, BTreeSet};

use lb_route::{
    Table,
    input::Name,
    trouble::{Severity, Trouble, reason},
};

use super::{Finding, Verdict};
use crate::change::Kind;

/// What becomes of what a trouble is about: an annotation, with its value, or something else.
pub(super) fn verdict(trouble: &Trouble, about: Option<(&str, &str)>) -> Verdict {
    match trouble.severity {
        Severity::Note => Verdict::Differs,
        Severity::Refused => Verdict::Refused,
        Severity::Denied => Verdict::Denied,
        Severity::Warning => {
            let is_value = trouble.reason == reason::PARSING_FAILED;
            let is_taken = about.is_some_and(|(name, value)| is_taken_there(name, value));
            // Nginx has expressions that are not offered here.
            let is_expression = trouble.reason == "InvalidPath"
                && trouble
                    .message
                    .contains("no regular expression that can be served");
            match is_expression || (is_value && is_taken) {
                true => Verdict::Refused,
                false => Verdict::Wrong,
            }
        }
    }
}

/// Whether ingress-nginx takes a value that the proxy does not (v1.15.1,
/// internal/ingress/annotations).
fn is_taken_there(name: &str, value: &str) -> bool {
    match name {
        "backend-protocol" => value.trim().eq_ignore_ascii_case("AUTO_HTTP"),
        // It takes what it cannot read for `*`.
        "cors-allow-origin" => true,
        "canary-by-header-pattern" => true,
        "server-alias" => value.contains('~'),
        "proxy-cookie-domain" | "proxy-cookie-path" => value.trim().starts_with('~'),
        "auth-tls-error-page" => value.trim().starts_with('@'),
        _ => false,
    }
}

/// Whether a trouble is that a snippet is refused, of an Ingress or of the ConfigMap: its
/// directives are told of there.
pub(super) fn is_snippet_told(trouble: &Trouble, name: &str) -> bool {
    match trouble.reason {
        reason::REFUSED => ["configuration-snippet", "server-snippet"].contains(&name),
        reason::CONFIG_REFUSED => {
            ["http-snippet", "server-snippet", "location-snippet"].contains(&name)
        }
        _ => false,
    }
}

/// Whether a trouble is that an object is missing, of a kind that a directory has nothing of.
pub(super) fn is_unchecked(trouble: &Trouble, absent: &BTreeSet<Kind>) -> bool {
    let kind = match trouble.reason {
        "MissingService" | "MissingPort" => Kind::Service,
        "MissingSecret" => Kind::Secret,
        "MissingConfigMap" => Kind::ConfigMap,
        _ => return false,
    };
    absent.contains(&kind)
}

/// That there is no ConfigMap of a name.
pub(super) fn missing(name: &Name) -> Finding {
    Finding {
        verdict: Verdict::Wrong,
        reason: "MissingConfigMap",
        message: format!(
            "there is no ConfigMap {name}: its defaults count; create it, or name another with \
             --configmap"
        ),
        lines: Vec::new(),
    }
}

/// The Ingresses of which every request is refused, and why.
#[derive(Debug)]
pub(super) struct Denials(BTreeMap<Name, BTreeSet<Denial>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Denial {
    /// What a request gets.
    status: u16,
    /// Why.
    why: String,
    /// Whether it is because a Secret is missing.
    is_secret: bool,
}

impl Denials {
    /// Those of a table.
    pub(super) fn of(table: &Table) -> Self {
        let mut all: BTreeMap<Name, BTreeSet<Denial>> = BTreeMap::new();
        for (_, host) in table.hosts() {
            let of_host = host.denied.clone().map(|why| (403, why, false));
            let client = host.client_cert.as_ref();
            let authority = client.filter(|client| client.data.is_none());
            let authority = authority.map(|client| {
                let secret = &client.settings.secret;
                (403, format!("there is no Secret {secret}"), true)
            });
            for location in host.locations() {
                let own = location.denied.clone();
                let own = own.map(|why| {
                    let is_secret = why.starts_with("there is no Secret ");
                    (503, why, is_secret)
                });
                let denials = [own, of_host.clone(), authority.clone()];
                for (status, why, is_secret) in denials.into_iter().flatten() {
                    let of_ingress = all.entry(location.ingress.clone()).or_default();
                    of_ingress.insert(Denial {
                        status,
                        why,
                        is_secret,
                    });
                }
            }
        }
        Self(all)
    }

    /// Adds those of an Ingress to what was found; what says why already is what denies.
    pub(super) fn add(&self, ingress: &Name, absent: &BTreeSet<Kind>, findings: &mut Vec<Finding>) {
        for denial in self.0.get(ingress).into_iter().flatten() {
            if denial.is_secret && absent.contains(&Kind::Secret) {
                continue;
            }
            let mut known = findings.iter_mut();
            if let Some(finding) = known.find(|f| f.message.contains(&denial.why)) {
                finding.verdict = Verdict::Denied;
                if !finding.message.contains("every request is refused") {
                    let rest = format!("; until then every request is answered {}", denial.status);
                    finding.message.push_str(&rest);
                }
                continue;
            }
            let Denial { status, why, .. } = denial;
            findings.push(Finding {
                verdict: Verdict::Denied,
                reason: "Denied",
                message: format!("every request is answered {status}: {why}"),
                lines: Vec::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(severity: Severity, reason: &'static str, message: &str) -> Trouble {
        Trouble {
            reason,
            severity,
            message: message.to_owned(),
        }
    }

    /// What ingress-nginx does with values that the proxy does not take.
    const VALUES: &[(&str, &str, Verdict)] = &[
        ("limit-rps", "many", Verdict::Wrong),
        ("backend-protocol", "auto_http", Verdict::Refused),
        ("backend-protocol", "SPDY", Verdict::Wrong),
        ("server-alias", "~^a$", Verdict::Refused),
        ("server-alias", "a b", Verdict::Wrong),
        ("cors-allow-origin", "x", Verdict::Refused),
        ("canary-by-header-pattern", "(?=a)", Verdict::Refused),
        ("proxy-cookie-path", "~^/a /", Verdict::Refused),
        ("auth-tls-error-page", "@page", Verdict::Refused),
        ("auth-tls-error-page", "page", Verdict::Wrong),
    ];

    #[test]
    fn a_trouble_is_judged_by_what_ingress_nginx_does_there() {
        use Severity::*;
        let around = "path \"/(?!a)\" is no regular expression that can be served";
        for (severity, reason, message, expected) in [
            (Note, "X", "", Verdict::Differs),
            (Refused, "X", "", Verdict::Refused),
            (Denied, reason::PARSING_FAILED, "", Verdict::Denied),
            (Warning, "MissingService", "", Verdict::Wrong),
            (Warning, "InvalidPath", "characters", Verdict::Wrong),
            (Warning, "InvalidPath", around, Verdict::Refused),
        ] {
            let trouble = trouble(severity, reason, message);
            assert_eq!(verdict(&trouble, None), expected, "{trouble:?}");
        }
        for (name, value, expected) in VALUES {
            let unread = trouble(Warning, reason::PARSING_FAILED, "");
            assert_eq!(
                verdict(&unread, Some((name, value))),
                *expected,
                "{name} {value}"
            );
            let other = trouble(Warning, "X", "");
            assert_eq!(
                verdict(&other, Some((name, value))),
                Verdict::Wrong,
                "{name}"
            );
        }
    }

    #[test]
    fn only_objects_of_kinds_that_there_are_can_be_missing() {
        let absent = BTreeSet::from([Kind::Service, Kind::Secret]);
        for (reason, expected) in [
            ("MissingService", true),
            ("MissingPort", true),
            ("MissingSecret", true),
            ("MissingConfigMap", false),
            ("InvalidSecret", false),
        ] {
            let trouble = trouble(Severity::Warning, reason, "");
            assert_eq!(is_unchecked(&trouble, &absent), expected, "{reason}");
        }
    }

    #[test]
    fn what_denies_is_said_once() {
        let name = Name::new("n", "x");
        let denial = |status, why: &str, is_secret| Denial {
            status,
            why: why.to_owned(),
            is_secret,
        };
        let all = [
            denial(503, "there is no Secret n/users", true),
            denial(403, "it is so", false),
        ];
        let denials = Denials([(name.clone(), all.into())].into());
        let finding = Finding {
            verdict: Verdict::Wrong,
            reason: "MissingSecret",
            message: "auth-secret: there is no Secret n/users: create it".to_owned(),
            lines: Vec::new(),
        };
        let mut findings = vec![finding];
        denials.add(&name, &BTreeSet::new(), &mut findings);
        let told: Vec<_> = findings
            .iter()
            .map(|f| (f.verdict, f.message.as_str()))
            .collect();
        let expected = [
            (
                Verdict::Denied,
                "auth-secret: there is no Secret n/users: create it; until then every request is \
                 answered 503",
            ),
            (Verdict::Denied, "every request is answered 403: it is so"),
        ];
        assert_eq!(told, expected);

        let mut findings = Vec::new();
        denials.add(&name, &BTreeSet::from([Kind::Secret]), &mut findings);
        assert_eq!(findings.len(), 1, "{findings:?}");
    }
}
