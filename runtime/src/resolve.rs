//! Looking names up.

use std::{fmt, io, net::SocketAddr};

use futures::future::BoxFuture;

use crate::system;

/// Finds the addresses of names.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// The addresses of `host`, each with `port`, in the order in which they should be tried.
    ///
    /// # Errors
    ///
    /// Why there are none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// Asks the system.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Box::pin(system::look_up(host, port))
    }
}
