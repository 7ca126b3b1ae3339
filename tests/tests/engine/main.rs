//! Links, the broadcaster, the mesh loop and whole nodes over in-memory links with a paused clock: nothing here
//! waits for the machine, and only computing takes time.

mod broadcaster;
mod contained;
mod in_memory;
mod link_codec;
mod links;
mod mesh_loop;
mod mesh_upkeep;
mod owner_model;
mod partition;
mod relayed_flood;
mod way_in;
mod weights;
