//! See `bascule_fuzz::cookie`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bascule_fuzz::cookie(data));
