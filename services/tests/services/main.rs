//! The services in the box, by their clients and by raw requests.

mod blocks;
mod files_fetch;
mod files_routes;
mod files_several;
mod files_store;
mod kv;
mod limits;
mod status;

#[path = "../files_support/mod.rs"]
mod files_support;
