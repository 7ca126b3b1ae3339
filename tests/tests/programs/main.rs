//! The program `tandem` in processes of their own, which are killed, stopped, limited and measured.

mod descriptors;
mod found_by_dns;
mod idle_memory;
mod killed_holder;
mod self_dial;
mod silence;
mod whole_program;
