//! Prints the golden file of the maglev tables:
//! `cargo run -p lb-plan --example golden > lb-plan/tests/golden/maglev.txt`.
//!
//! A difference is a break of the contract between nodes and versions.

#[path = "../tests/common/golden.rs"]
mod golden;

fn main() {
    print!("{}", golden::text());
}
