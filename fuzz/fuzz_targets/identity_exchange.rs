//! The target `identity_exchange` for the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::run("identity_exchange", data));
