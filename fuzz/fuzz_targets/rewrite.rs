//! See `bascule_fuzz::rewrite`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bascule_fuzz::rewrite(data));
