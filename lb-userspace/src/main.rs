//! `bascule`: the node agent, and views of what it programmed.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
