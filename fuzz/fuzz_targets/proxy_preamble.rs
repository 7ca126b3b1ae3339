//! The target `proxy_preamble` for the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::run("proxy_preamble", data));
