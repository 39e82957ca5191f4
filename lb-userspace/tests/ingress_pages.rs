//! The pages about Ingresses say what the code does.

use clap::CommandFactory as _;
use lb_route::{
    annotations::{self, ALIASES, Risk},
    globals,
    trouble::Mark,
};
use lb_userspace::cli::args::Cli;

/// What Markdown would read as emphasis, or as the end of a cell.
fn plain(text: &str) -> String {
    text.replace('*', "\\*").replace('|', "\\|")
}

const fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Served => "served",
        Mark::Accepted => "no effect",
        Mark::Refused => "refused",
    }
}

const fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Low => "low",
        Risk::Medium => "medium",
        Risk::High => "high",
        Risk::Critical => "critical",
    }
}

/// The lines of a page from its first table on: a heading and a table for each group.
fn tables(page: &str) -> Vec<&str> {
    let first = page
        .find("\n### ")
        .expect("a page has a heading for each group");
    page[first..]
        .lines()
        .filter(|line| !line.is_empty())
        .collect()
}

fn same(page: &str, expected: &[String]) {
    let is_same = tables(page) == expected;
    assert!(is_same, "the tables must be:\n{}", expected.join("\n"));
}

#[test]
fn the_page_says_of_each_annotation_what_becomes_of_it() {
    let mut expected = Vec::new();
    for group in annotations::GROUPS {
        let canary = if group.on_canary {
            ", on canaries too"
        } else {
            ""
        };
        expected.push(format!("### {}{canary}", group.name));
        expected.push("| annotation | | risk | |".to_owned());
        expected.push("|---|---|---|---|".to_owned());
        expected.extend(group.annotations.iter().map(|one| {
            let (mark, risk) = (word(one.mark), risk(one.risk));
            format!(
                "| `{}` | {mark} | {risk} | {} |",
                one.name,
                plain(one.sentence)
            )
        }));
    }
    let page = include_str!("../../docs/annotations.md");
    same(page, &expected);
    for (alias, name) in ALIASES {
        assert!(page.contains(&format!("`{alias}` is `{name}`")), "{alias}");
    }
}

#[test]
fn the_page_says_of_each_key_what_becomes_of_it() {
    let mut expected = Vec::new();
    for (name, keys) in globals::GROUPS {
        expected.push(format!("### {name}"));
        expected.push("| key | | |".to_owned());
        expected.push("|---|---|---|".to_owned());
        let row = |key: &globals::Key| {
            format!(
                "| `{}` | {} | {} |",
                key.name,
                word(key.mark),
                plain(key.sentence)
            )
        };
        expected.extend(keys.iter().map(row));
    }
    same(include_str!("../../docs/configmap.md"), &expected);
}

/// The flags that stand in a cell of a table.
fn flags(cell: &str) -> Vec<&str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    let flags = quoted.filter_map(|text| text.strip_prefix("--"));
    flags
        .map(|text| text.split(' ').next().unwrap_or(text))
        .collect()
}

#[test]
fn the_page_names_flags_that_there_are_and_lacks_none_that_there_is() {
    let command = Cli::command();
    let proxy = command.find_subcommand("proxy").unwrap();
    let arguments = proxy.get_arguments();
    let known: Vec<String> = arguments
        .flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default())
        .map(str::to_owned)
        .collect();
    let is_known = |flag: &str| known.iter().any(|known| known == flag);
    let page = include_str!("../../docs/ingress.md");
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| flag of ingress-nginx"));
    let rows: Vec<&str> = rows
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let (theirs, ours) = (flags(cells[1]), flags(cells[2]));
        assert!(ours.iter().all(|flag| is_known(flag)), "{row}");
        // What has a flag of the same name is told of by that name.
        let unnamed = theirs.iter().filter(|flag| is_known(flag));
        let unnamed: Vec<_> = unnamed.filter(|flag| !ours.contains(flag)).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}: {row}");
    }
}
