//! What a benchmark asks of an API server: `bench_api URL TOKEN` does what its standard input
//! asks for, a request of JSON a line, and answers each by a line.

use std::io::{Error, Result};

use bascule_tests::bench::api;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [url, token] => api::work(url, token),
        _ => Err(Error::other("usage: bench_api URL TOKEN")),
    }
}
