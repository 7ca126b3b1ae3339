//! A router that knows what it answers.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    routing::{MethodRouter, delete, get, post, put},
};

use super::context::Context;

/// A method and a path, as the description writes them.
pub(super) type Listed = (&'static str, &'static str);

/// A router, and the list of what it answers.
#[derive(Debug, Default)]
pub(super) struct Routes {
    router: Router<Arc<Context>>,
    listed: Vec<Listed>,
}

impl Routes {
    /// Answers `GET`.
    pub(super) fn get<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Context>>,
        T: 'static,
    {
        self.on("get", path, get(handler))
    }

    /// Answers `POST`.
    pub(super) fn post<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Context>>,
        T: 'static,
    {
        self.on("post", path, post(handler))
    }

    /// Answers `PUT`.
    pub(super) fn put<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Context>>,
        T: 'static,
    {
        self.on("put", path, put(handler))
    }

    /// Answers `DELETE`.
    pub(super) fn delete<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Context>>,
        T: 'static,
    {
        self.on("delete", path, delete(handler))
    }

    fn on(
        mut self,
        method: &'static str,
        path: &'static str,
        routes: MethodRouter<Arc<Context>>,
    ) -> Self {
        self.listed.push((method, path));
        Self { router: self.router.route(path, routes), ..self }
    }

    /// Everything that the router answers.
    #[cfg(test)]
    pub(super) fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// The router, without its list.
    pub(super) fn into_router(self) -> Router<Arc<Context>> {
        self.router
    }
}
