//! The programs of the README and of the manual, which the documentation tests compile and run as they stand
//! there.
//!
//! Commands, configurations and what they print are run by `node/tests/program/docs`, which also keeps this list whole.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;

#[doc = include_str!("../../docs/http.md")]
struct Http;

#[doc = include_str!("../../docs/topics.md")]
struct Topics;
