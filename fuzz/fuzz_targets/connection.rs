//! See `bascule_fuzz::connection`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bascule_fuzz::connection(data));
