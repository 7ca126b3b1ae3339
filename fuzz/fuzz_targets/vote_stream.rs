//! The target `vote_stream` for the engine.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::run("vote_stream", data));
