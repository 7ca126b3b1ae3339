//! The programs of the README and of the manual, which the documentation tests compile and run as they stand
//! there.
//!
//! Commands, configurations and what they print are run by `node/tests/program/docs`, which also keeps this list whole.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;

#[doc = include_str!("../../docs/first-service.md")]
struct FirstService;

#[doc = include_str!("../../docs/first-engine.md")]
struct FirstEngine;

#[doc = include_str!("../../docs/topics.md")]
struct Topics;
