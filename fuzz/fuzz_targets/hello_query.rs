//! The target `hello_query` for the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::run("hello_query", data));
