//! `bascule`: the node agent, and views of what it programmed.

use std::{
    ffi::{c_int, c_long},
    process::ExitCode,
};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h: milliseconds for which freed memory is kept. A test sees
/// that it is this one.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

fn main() -> ExitCode {
    // Memory that is kept is given back only when more is freed: who frees much and then rests, as
    // an agent does that has read all objects, and a proxy whose connections wait, would keep it
    // for good.
    // SAFETY: the signature is that of mimalloc.h, and there is no other thread yet.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
    lb_userspace::cli::main()
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    #[test]
    fn the_option_is_that_of_the_allocator() {
        // SAFETY: the signature is that of mimalloc.h, and nobody sets the option.
        let of_environment = |option| unsafe { mi_option_get(option) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            assert_eq!(of_environment(PURGE_DELAY), 77);
            return;
        }
        // Options are read from the environment when a process begins.
        let test = std::env::current_exe().expect("a test has a program");
        let status = std::process::Command::new(test)
            .arg("the_option_is_that_of_the_allocator")
            .env("MIMALLOC_PURGE_DELAY", "77")
            .status();
        assert!(status.expect("it can be started").success());
    }
}
