//! Blocks: kept, served and fetched.
