//! See `bascule_fuzz::head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bascule_fuzz::head(data));
