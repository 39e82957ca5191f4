//! See `bascule_fuzz::htpasswd`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bascule_fuzz::htpasswd(data));
