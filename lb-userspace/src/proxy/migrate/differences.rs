//! What is served, and not quite as ingress-nginx does it.

use lb_route::input::Name;

use super::{Finding, Verdict};
use crate::proxy::store::Store;

/// Reason of what differs on purpose.
const DIFFERS: &str = "ServedOtherwise";

/// An annotation, whether its value matters, and what differs.
type Difference = (&'static str, fn(&[(&str, &str)]) -> bool, &'static str);

const DIFFERENCES: &[Difference] = &[
    (
        "upstream-hash-by",
        |_| true,
        "chooses endpoints by rendezvous hashing, not by ingress-nginx's ring: most values reach \
         another endpoint once, when traffic moves, and later only those of an endpoint that goes \
         or comes; nothing has to be changed",
    ),
    (
        "affinity",
        |own| {
            !own.iter()
                .any(|(name, value)| *name == "affinity-mode" && value.trim() == "persistent")
        },
        "leads most clients that are bound already to another endpoint once, when traffic moves: in \
         its balanced mode the endpoint follows from the cookie by rendezvous hashing; nothing has \
         to be changed, and affinity-mode: persistent binds them as they are",
    ),
    (
        "global-rate-limit",
        |_| true,
        "counts, where ingress-nginx does so until v1.11 and with memcached only: the proxies tell \
         each other what they let in, and need --peers for that (docs/ingress.md says how far \
         beyond the limit they may get); remove it if there is to be no limit",
    ),
];

/// Those of the annotations of an Ingress.
pub(super) fn of_annotations(own: &[(&str, &str)]) -> Vec<Finding> {
    let is_set = |name: &str| {
        own.iter()
            .any(|(known, value)| *known == name && !value.trim().is_empty())
    };
    let there = DIFFERENCES
        .iter()
        .filter(|(name, applies, _)| is_set(name) && applies(own));
    let finding = |(name, _, rest): &Difference| Finding {
        verdict: Verdict::Differs,
        reason: DIFFERS,
        message: format!("{name} {rest}"),
        lines: Vec::new(),
    };
    there.map(finding).collect()
}

/// Whether an annotation, or a key of the ConfigMap, names a ConfigMap with headers.
pub(super) fn names_headers(name: &str) -> bool {
    [
        "add-headers",
        "auth-proxy-set-headers",
        "custom-headers",
        "proxy-set-headers",
    ]
    .contains(&name)
}

/// Headers whose values have variables: nginx fills them in, and here they are sent as they are.
pub(super) fn of_headers(named: &[(String, Name)], store: &Store) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (by, name) in named {
        let Some(data) = store.config_map(name) else {
            continue;
        };
        let values = data.0.keys().filter_map(|key| Some((key, data.text(key)?)));
        let with_variables = values.filter(|(_, value)| has_variable(value));
        findings.extend(with_variables.map(|(header, value)| Finding {
            verdict: Verdict::Refused,
            reason: "HeaderWithVariable",
            message: format!(
                "{by}: {header} of ConfigMap {name} is {value:?}, whose variables are not filled \
                 in: leave it out, and let the backend do it"
            ),
            lines: Vec::new(),
        }));
    }
    findings
}

/// Whether a value has `$name` or `${name}` in it.
fn has_variable(value: &str) -> bool {
    let mut rest = value.split('$').skip(1);
    let is_name = |rest: &str| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    };
    rest.any(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_names_behind_a_dollar() {
        for (value, expected) in [
            ("$host", true),
            ("a ${http_x} b", true),
            ("t=${msec}", true),
            ("5 $", false),
            ("$$", false),
            ("$ 5", false),
            ("plain", false),
        ] {
            assert_eq!(has_variable(value), expected, "{value}");
        }
    }

    #[test]
    fn a_client_of_the_persistent_mode_stays_where_it_is() {
        let names = |own: &[(&str, &str)]| -> Vec<String> {
            let all = of_annotations(own).into_iter();
            all.map(|f| f.message.split(' ').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&[("affinity", "cookie")]), ["affinity"]);
        let persistent = [("affinity", "cookie"), ("affinity-mode", "persistent")];
        assert_eq!(names(&persistent), [""; 0]);
        assert_eq!(
            names(&[("upstream-hash-by", "$host")]),
            ["upstream-hash-by"]
        );
        assert_eq!(names(&[("upstream-hash-by", " ")]), [""; 0]);
        assert_eq!(
            names(&[("global-rate-limit", "5"), ("limit-rps", "5")]),
            ["global-rate-limit"]
        );
    }
}
