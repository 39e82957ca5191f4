//! Annotations of an Ingress `shop/web`, read.

use std::collections::BTreeMap;

use lb_route::{
    annotations::{self, PREFIX, Read},
    globals::Globals,
    input::Name,
};

/// With a ConfigMap.
pub(crate) fn read_with(globals: &[(&str, &str)], annotations: &[(&str, &str)]) -> Read {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let (globals, _) = Globals::read(&globals.iter().map(own).collect());
    let annotations: BTreeMap<String, String> = annotations
        .iter()
        .map(|(name, value)| (format!("{PREFIX}/{name}"), (*value).to_owned()))
        .collect();
    annotations::read(&Name::new("shop", "web"), &annotations, PREFIX, &globals)
}

/// Without one.
pub(crate) fn read(annotations: &[(&str, &str)]) -> Read {
    read_with(&[], annotations)
}
