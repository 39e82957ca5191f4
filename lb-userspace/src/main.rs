//! `bascule`: the node agent, and views of what it programmed.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
