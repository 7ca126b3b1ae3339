//! The library, as applications use it.

mod embedding;
mod kept;
mod limits;
mod reach;
