//! kube-proxy's flags, from the table of its configuration.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};
use serde_json::Value;

use crate::config::{
    fields::{Effect, FIELDS, Field},
    kind::Kind,
};

/// The flags of kube-proxy that were given, with their values.
#[derive(Clone, Debug, Default)]
pub struct KubeFlags(pub Vec<(&'static Field, Value)>);

/// Flags of the table that the agent's own arguments have, or clap.
const ELSEWHERE: [&str; 7] = [
    "config",
    "write-config-to",
    "cleanup",
    "init-only",
    "master",
    "version",
    "help",
];

fn flags() -> impl Iterator<Item = &'static Field> {
    let named = |f: &&Field| !f.flag.is_empty() && !ELSEWHERE.contains(&f.flag);
    FIELDS.iter().filter(named)
}

impl clap::Args for KubeFlags {
    fn augment_args(command: Command) -> Command {
        flags().fold(command, |command, field| command.arg(arg(field)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(field: &'static Field) -> Arg {
    let kind = field.kind;
    let what = match field.effect {
        Effect::Honoured => "as in kube-proxy",
        Effect::Mapped => "mapped",
        Effect::Nothing => "no meaning here",
    };
    let arg = Arg::new(field.flag)
        .long(field.flag)
        .help(format!("{what}: {}", field.note))
        .help_heading("Flags of kube-proxy")
        .hide_short_help(field.effect != Effect::Honoured)
        .value_name(value_name(kind))
        .value_parser(move |text: &str| kind.parse(text))
        .allow_hyphen_values(matches!(kind, Kind::Int | Kind::Float | Kind::Period));
    match kind {
        Kind::Bool => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::List => arg.num_args(1..).action(ArgAction::Append),
        Kind::Gates | Kind::Vmodule => arg.action(ArgAction::Append),
        _ => arg,
    }
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "TEXT",
        Kind::Bool => "BOOL",
        Kind::Int | Kind::Float => "N",
        Kind::Period | Kind::PeriodOrNanos => "DURATION",
        Kind::List => "LIST",
        Kind::Gates => "NAME=BOOL,…",
        Kind::Ip => "IP",
        Kind::IpPort => "IP:PORT",
        Kind::Vmodule => "PATTERN=N,…",
        Kind::Quantity => "SIZE",
    }
}

impl FromArgMatches for KubeFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = flags().filter_map(|field| {
            let all = matches.get_many::<Value>(field.flag)?;
            Some((field, all.cloned().fold(Value::Null, joined)))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Lists are joined when they are given more than once.
fn joined(before: Value, value: Value) -> Value {
    match (before, value) {
        (Value::Array(mut all), Value::Array(more)) => {
            all.extend(more);
            all.into()
        }
        (Value::Object(mut all), Value::Object(more)) => {
            all.extend(more);
            all.into()
        }
        (_, value) => value,
    }
}

/// The arguments of the process, with those of `bascule agent` that only
/// kube-proxy's parser understands written as this one does: `--bind_address`,
/// `-v=4`, `-v 4`.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let given: Vec<OsString> = given.into_iter().collect();
    if given.get(1).is_none_or(|command| command != "agent") {
        return given;
    }
    let mut all = Vec::with_capacity(given.len());
    let mut rest = given.into_iter().peekable();
    let is_level = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str() else {
            all.push(argument);
            continue;
        };
        let level =
            |next: Option<&OsString>| next?.to_str().filter(|t| is_level(t)).map(str::to_owned);
        let written = match text.strip_prefix("-v") {
            Some("") => level(rest.peek()).inspect(|_| drop(rest.next())),
            Some(after) => Some(after.strip_prefix('=').unwrap_or(after))
                .filter(|t| is_level(t))
                .map(str::to_owned),
            None => None,
        };
        all.push(match (written, text.strip_prefix("--")) {
            (Some(level), _) => format!("--v={level}").into(),
            (None, Some(name)) => {
                let (name, value) = name.split_at(name.find('=').unwrap_or(name.len()));
                format!("--{}{value}", name.replace('_', "-")).into()
            }
            (None, None) => argument,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_as_kube_proxy_takes_them_are_understood() {
        for (given, expected) in [
            ("bascule agent -v=4", "bascule agent --v=4"),
            ("bascule agent -v 2 -v", "bascule agent --v=2 -v"),
            ("bascule agent -v6 -vv", "bascule agent --v=6 -vv"),
            (
                "bascule agent --bind_address=a_b --uplinks a_b",
                "bascule agent --bind-address=a_b --uplinks a_b",
            ),
            (
                "bascule status --state_dir x",
                "bascule status --state_dir x",
            ),
        ] {
            let words = arguments(given.split(' ').map(OsString::from));
            let words: Vec<_> = words.iter().map(|w| w.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), expected);
        }
    }
}
