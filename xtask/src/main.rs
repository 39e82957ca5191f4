//! `cargo xtask`: sets up, builds, lints and tests Bascule.

mod bench;
mod build;
mod cache;
mod chart;
mod chromium;
mod cli;
mod cluster;
mod debian;
mod elf;
mod fuzz;
mod image;
mod lab;
mod lint;
mod paths;
mod prometheus;
mod setup;
mod sh;
mod tally;
mod test;
mod tool;
mod ui;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(e) => {
            ui::error(format!("{e:#}"));
            ExitCode::from(cli::exit_code(&e))
        }
    }
}
