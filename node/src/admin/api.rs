//! The routes of the admin API, all of them under one version.
//!
//! # Invariants
//!
//! * Every route is in the table from which the router is made, so that the description in `node/openapi.json` can be
//!   compared with it.
//! * A request that is wrong is answered in problem JSON, also by the parts that read paths and queries.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Query},
    handler::Handler,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use serde::de::DeserializeOwned;

use super::{
    actions, bans, context::Context, events, members, messages, peers, phonebook, problem::refuse,
    state,
};

/// The description of the API, for programs.
pub(super) const OPENAPI: &str = include_str!("../../openapi.json");

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
}

/// The table of the routes.
pub(super) fn routes() -> Routes {
    let parts = [
        state::routes,
        peers::routes,
        phonebook::routes,
        bans::routes,
        members::routes,
        messages::routes,
        events::routes,
        actions::routes,
    ];
    let routes = Routes::default().get("/v1/openapi.json", openapi);
    parts.into_iter().fold(routes, |routes, part| part(routes))
}

/// The router of the API.
pub(super) fn router(context: Context) -> Router {
    routes()
        .router
        .fallback(|| async {
            refuse(StatusCode::NOT_FOUND, "there is no such path: /v1/openapi.json has all of them")
        })
        .method_not_allowed_fallback(|| async {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
        })
        .with_state(Arc::new(context))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// The query of a request.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(asked)| Self(asked))
            .map_err(|error| refuse(StatusCode::BAD_REQUEST, error.body_text()))
    }
}
