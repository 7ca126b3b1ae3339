//! The target `dns_answer` for the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::run("dns_answer", data));
