//! A small key-value service, to show how one is made.
