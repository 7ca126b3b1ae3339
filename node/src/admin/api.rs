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
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    actions, bans, context::Context, dht, events, members, messages, peers, phonebook,
    problem::refuse, route_table::Routes, state, topics, traces,
};

/// The description of the API, for programs.
pub(super) const OPENAPI: &str = include_str!("../../openapi.json");

/// The table of the routes.
pub(super) fn routes() -> Routes {
    let parts = [
        state::routes,
        peers::routes,
        phonebook::routes,
        dht::routes,
        bans::routes,
        members::routes,
        messages::routes,
        topics::routes,
        traces::routes,
        events::routes,
        actions::routes,
    ];
    let routes = Routes::default().get("/v1/openapi.json", openapi);
    parts.into_iter().fold(routes, |routes, part| part(routes))
}

/// The router of the API.
pub(super) fn router(context: Context) -> Router {
    routes()
        .into_router()
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
