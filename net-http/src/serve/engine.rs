//! The choice of an implementation of HTTP/1.1.

/// The part of a server that makes requests of the bytes of a connection, and bytes of answers. Heads are judged, waits are
/// bounded and permits are taken in front of it, the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// hyper behind a short loop that answers requests in their plainest form itself, and leaves the connection to hyper with the
    /// first other one. It answers the same as hyper, and trailers and upgrades are hyper's.
    Direct,
    /// hyper. It asks the system for the time of day, so it does not run in WebAssembly.
    Hyper,
    /// A small one that runs everywhere. It offers no upgrades, leaves out the trailers of a body, and frames every answer
    /// itself.
    Portable,
}

impl Default for Engine {
    /// [`Engine::Direct`], where hyper runs.
    fn default() -> Self {
        if cfg!(target_family = "wasm") { Self::Portable } else { Self::Direct }
    }
}
