//! What becomes of the path.

use super::{Group, Reader, Risk::*, served};
use crate::values::{self, Parsed};

pub(super) const GROUP: Group = Group {
    name: "rewrite",
    on_canary: false,
    annotations: &[
        served(
            "rewrite-target",
            Medium,
            "What replaces the whole path; $1 to $9 are groups of the rule's expression.",
        ),
        served(
            "use-regex",
            Low,
            "Whether the paths of the Ingress are expressions.",
        ),
        served("app-root", Medium, "Where a request for / is led (302)."),
        served(
            "x-forwarded-prefix",
            Medium,
            "X-Forwarded-Prefix for the backend, where rewrite-target is set.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    let path = |value| values::template_of(value, values::PATH).map(Some);
    reader.set("rewrite-target", path, |s| &mut s.rewrite.target);
    reader.set("use-regex", values::flag, |s| &mut s.rewrite.use_regex);
    reader.set("app-root", root, |s| &mut s.rewrite.app_root);
    let prefix = |value| {
        let spaced = values::text(value, "-._~/:$ ")?;
        values::template(spaced).map(Some)
    };
    reader.set("x-forwarded-prefix", prefix, |s| {
        &mut s.rewrite.forwarded_prefix
    });
    if reader.settings.rewrite.target.is_none() {
        reader.without("rewrite-target", &["x-forwarded-prefix"]);
    }
}

fn root(value: &str) -> Parsed<Option<String>> {
    let wanted = "a path that begins with /";
    let path = values::text(value, values::PATH).map_err(|_| wanted)?;
    let is_path = path.starts_with('/');
    is_path.then(|| Some(path.to_owned())).ok_or(wanted.into())
}
