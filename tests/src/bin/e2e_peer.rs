//! A process of a pod or node in the end-to-end tests: `e2e_peer` does what its standard input
//! asks for, `e2e_peer serve NAME PORT` serves for ever.

use std::io::{Error, Result};

use bascule_tests::e2e::worker;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => worker::work(),
        ["serve", name, port] => worker::serve(name, port.parse().map_err(Error::other)?),
        _ => Err(Error::other("usage: e2e_peer [serve NAME PORT]")),
    }
}
