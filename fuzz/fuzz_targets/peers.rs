//! See `bascule_fuzz::peers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bascule_fuzz::peers(data));
