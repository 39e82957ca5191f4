//! What is served, and not quite as ingress-nginx does it.

use super::{Finding, Verdict};

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
        "enable-opentelemetry",
        |own| {
            own.iter()
                .any(|(name, value)| *name == "enable-opentelemetry" && value.trim() == "true")
        },
        "gives spans the attributes that OpenTelemetry has today (http.request.method, and not \
         http.method), and each attempt at an endpoint a span of its own, which is the parent of \
         the backend's; nothing has to be changed, but for dashboards that look for the old names",
    ),
    (
        "global-rate-limit",
        |_| true,
        "counts, where ingress-nginx does so until v1.11 and with memcached only: the proxies tell \
         each other what they let in, and need --peers for that (docs/ingress.md says how far \
         beyond the limit they may get); remove it if there is to be no limit",
    ),
];

/// Those of the annotations of an Ingress, or of the keys of the ConfigMap.
pub(super) fn of_settings(own: &[(&str, &str)]) -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_where_it_counts() {
        let names = |own: &[(&str, &str)]| -> Vec<String> {
            let all = of_settings(own).into_iter();
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
        assert_eq!(names(&[("enable-opentelemetry", "false")]), [""; 0]);
        let traced = names(&[("enable-opentelemetry", "true")]);
        assert_eq!(traced, ["enable-opentelemetry"]);
        assert_eq!(names(&[("upstream-hash-by", " ")]), [""; 0]);
        assert_eq!(
            names(&[("global-rate-limit", "5"), ("limit-rps", "5")]),
            ["global-rate-limit"]
        );
    }
}
