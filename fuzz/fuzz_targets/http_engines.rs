//! The target `http_engines` for the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::run("http_engines", data));
