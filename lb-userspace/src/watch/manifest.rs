//! Manifests: YAML (or JSON, which is YAML) with any number of documents.

use k8s_openapi::api::{
    core::v1::{Node as ApiNode, Service as ApiService},
    discovery::v1::EndpointSlice as ApiSlice,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::convert;
use crate::{change::Object, intern::Interner};

/// A document that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bad {
    /// Number of the document in its file, from 1.
    pub document: usize,
    /// Line, field, and what is wrong.
    pub message: String,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "document {}: {}", self.document, self.message)
    }
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    /// The objects of the kinds that we read; others are skipped.
    pub objects: Vec<Object>,
    /// The documents that could not be read.
    pub bad: Vec<Bad>,
}

/// The start of every object.
#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
}

/// A `List`, as `kubectl get -o yaml` writes it.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

/// Reads the objects of a file.
pub fn parse(text: &str, interner: &Interner) -> Parsed {
    let mut parsed = Parsed::default();
    let mut line = 0;
    for (index, document) in documents(text).enumerate() {
        match parse_document(document, line, interner) {
            Ok(objects) => parsed.objects.extend(objects),
            Err(message) => parsed.bad.push(Bad {
                document: index + 1,
                message,
            }),
        }
        line += document.lines().count();
    }
    parsed
}

/// Splits at the lines that separate documents. They stay at the start of the
/// document which they open.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len();
        for (at, _) in rest.match_indices("\n---") {
            let after = rest[at + 4..].chars().next();
            if after.is_none_or(|c| c.is_whitespace()) {
                end = at + 1;
                break;
            }
        }
        let (document, tail) = rest.split_at(end);
        rest = tail;
        Some(document)
    })
}

fn parse_document(text: &str, line: usize, interner: &Interner) -> Result<Vec<Object>, String> {
    let meaningful = |l: &str| {
        let l = l.trim();
        !l.is_empty() && !l.starts_with('#') && l != "---" && l != "..."
    };
    if !text.lines().any(meaningful) {
        return Ok(Vec::new());
    }
    let kind = match kind_line(text) {
        Some(kind) => Some(kind.to_owned()),
        None => read::<Head>(text, line)?.kind,
    };
    let one = |object: Object| named(object).map(|o| vec![o]);
    match kind.as_deref() {
        Some("Service") => one(convert::service(&read::<ApiService>(text, line)?, interner)),
        Some("EndpointSlice") => one(convert::slice(&read::<ApiSlice>(text, line)?, interner)),
        Some("Node") => one(convert::node(&read::<ApiNode>(text, line)?, interner)),
        Some(kind) if kind.ends_with("List") => {
            let list: List = read(text, line)?;
            let items = list.items.into_iter().enumerate();
            items
                .filter_map(|(i, item)| item_of_list(i, item, interner).transpose())
                .collect()
        }
        Some(_) => Ok(Vec::new()),
        None => Err(format!(
            "line {}: field kind is missing: it must be Service, EndpointSlice, Node or List",
            line + 1
        )),
    }
}

/// The kind, where it stands on a line of its own as it nearly always does: a
/// document need not be decoded twice then.
fn kind_line(text: &str) -> Option<&str> {
    let kind = text
        .lines()
        .find_map(|line| line.strip_prefix("kind: "))?
        .trim();
    kind.chars()
        .all(|c| c.is_ascii_alphanumeric())
        .then_some(kind)
}

fn item_of_list(
    index: usize,
    item: serde_json::Value,
    interner: &Interner,
) -> Result<Option<Object>, String> {
    fn typed<T: DeserializeOwned>(index: usize, item: serde_json::Value) -> Result<T, String> {
        serde_path_to_error::deserialize(item)
            .map_err(|e| format!("items[{index}]: {}{}", field_of(e.path()), e.inner()))
    }
    let object = match item.get("kind").and_then(|k| k.as_str()) {
        Some("Service") => convert::service(&typed(index, item)?, interner),
        Some("EndpointSlice") => convert::slice(&typed(index, item)?, interner),
        Some("Node") => convert::node(&typed(index, item)?, interner),
        _ => return Ok(None),
    };
    named(object).map(Some)
}

fn named(object: Object) -> Result<Object, String> {
    if object.key.name.is_empty() {
        return Err(format!(
            "field metadata.name of this {} is missing",
            object.key.kind
        ));
    }
    Ok(object)
}

/// Decodes a document that starts after `line` lines of its file.
fn read<T: DeserializeOwned>(text: &str, line: usize) -> Result<T, String> {
    let options = serde_saphyr::options! {
        // A file that the operator wrote may be as large as a whole cluster: the
        // limits against hostile input stay only where they bound recursion.
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        with_snippet: false,
    };
    if let Ok(decoded) = serde_saphyr::from_str_with_options(text, options.clone()) {
        return Ok(decoded);
    }
    // Once more, to know the field: keeping track of it costs time.
    let mut field = String::new();
    let decoded = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|e| {
            field = field_of(e.path());
            e.into_inner()
        })
    });
    decoded.map_err(|e| {
        let mut message = e.without_snippet().to_string();
        let mut place = String::new();
        if let Some(at) = e.location() {
            // The decoder counts lines from the start of the document.
            let own = format!(" at line {}, column {}", at.line(), at.column());
            message.truncate(message.strip_suffix(&own).unwrap_or(&message).len());
            let line = line as u64 + at.line();
            place = format!("line {line}, column {}: ", at.column());
        }
        format!("{place}{field}{message}")
    })
}

fn field_of(path: &serde_path_to_error::Path) -> String {
    match path.to_string() {
        // The document itself.
        path if path == "." => String::new(),
        path => format!("field {path}: "),
    }
}
