//! The HTTP service of a node, put together of routers.
//!
//! ```text
//!   router ──does not know the path──▶ next router ─▶ … ─▶ last service ─▶ 404 in the words of existing nodes
//! ```
//!
//! # Invariants
//!
//! * Routers are asked in the order in which they were given, so none hides what came before it.
//! * Every router is behind a protection; only the service that is asked last may be without one.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body, extract::Request};
use gossip::{
    Durations, LimitError,
    http::{HttpBody, HttpService},
};
use http::{Response, StatusCode};
use net_http::{HttpServer, Protection, ServeContext, ServeLimits, reply};
use runtime::Rarely;
use tower::{Service, ServiceExt, service_fn};

use super::NodeBuilder;

/// The routers of a node, the service behind them, and the limits on both.
#[derive(Debug, Default)]
pub(super) struct Served {
    routers: Vec<Router>,
    last: Option<HttpService>,
    limits: ServeLimits,
    /// The first limit of a protection that cannot be used.
    wrong: Option<LimitError>,
}

impl Served {
    /// Adds a router, which is asked after those that were added before.
    pub(super) fn router(&mut self, router: Router) {
        self.routers.push(router);
    }

    /// Sets the service that is asked for paths that no router knows.
    pub(super) fn last(&mut self, service: HttpService) {
        self.last = Some(service);
    }

    /// Checks the durations among the limits.
    pub(super) fn check(&self) -> Result<(), LimitError> {
        self.limits.check()?;
        self.wrong.map_or(Ok(()), Err)
    }

    /// The server of it; `None` if there is nothing to serve.
    pub(super) fn server(self, context: ServeContext) -> Option<HttpServer> {
        let limits = self.limits.clone();
        Some(HttpServer::within(self.service()?, limits, context))
    }

    /// All of it as one service; `None` if there is nothing.
    fn service(self) -> Option<HttpService> {
        if self.routers.is_empty() {
            return self.last;
        }
        let last = match self.last {
            Some(service) => Router::new().fallback_service(answering(service)),
            None => Router::new().fallback(|| async { reply::not_found() }),
        };
        let all = self.routers.into_iter().rev();
        let all = all.fold(last, |after, router| router.fallback_service(after));
        Some(HttpService::new(all))
    }
}

impl NodeBuilder {
    /// Adds a router to serve over HTTP, on the WebSocket port and on libp2p streams, behind the default
    /// [`Protection`]. Routers are asked in the order in which they are added; of their fallbacks only
    /// that of the last one counts, and only if nothing is given to [`NodeBuilder::http_service`]. Default: none, and
    /// without any router or service the node serves no HTTP.
    pub fn http(self, router: Router) -> Self {
        self.http_with(router, &Protection::default())
    }

    /// Adds a router as [`NodeBuilder::http`] does, behind another protection.
    pub fn http_with(mut self, router: Router, protection: &Protection) -> Self {
        if let Err(wrong) = protection.check() {
            self.served.wrong.get_or_insert(wrong);
        }
        self.served.router(protection.apply(router));
        self
    }

    /// Sets the tower service that is asked for paths that no router knows. It is behind no protection but the limits on
    /// connections and requests: add layers to it. Default: 404.
    pub fn http_service(mut self, service: HttpService) -> Self {
        self.served.last(service);
        self
    }

    /// Sets the limits on connections, heads and requests of callers. Default: [`ServeLimits::default`].
    pub fn serve_limits(mut self, serve_limits: ServeLimits) -> Self {
        self.served.limits = serve_limits;
        self
    }
}

/// A service that answers also where `service` fails.
fn answering(
    service: HttpService,
) -> impl Service<Request, Response = Response<Body>, Error = Infallible, Future: Send> + Clone {
    // Any caller may be able to make it fail.
    let failures = Arc::new(Rarely::new());
    service_fn(move |request: Request| {
        let (service, failures) = (service.clone(), Arc::clone(&failures));
        async move {
            let answered = service.oneshot(request.map(HttpBody::new)).await;
            Ok(answered.map(|response| response.map(Body::new)).unwrap_or_else(|error| {
                if let Some(left_out) = failures.due() {
                    tracing::warn!(%error, left_out, "an HTTP service failed");
                }
                let mut failed = Response::new(Body::empty());
                *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                failed
            }))
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use gossip::http::read_all;

    use super::*;

    async fn ask(service: &HttpService, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(HttpBody::empty()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = read_all(response.into_body(), 1_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_first_router_that_knows_a_path_answers() {
        let mut served = Served::default();
        served.router(Router::new().route("/a", get(async || "first")));
        served.router(
            Router::new().route("/a", get(async || "second")).route("/b", get(async || "b")),
        );
        let service = served.service().unwrap();
        assert_eq!(ask(&service, "/a").await, (StatusCode::OK, "first".to_owned()));
        assert_eq!(ask(&service, "/b").await, (StatusCode::OK, "b".to_owned()));
        let missing = ask(&service, "/c").await;
        assert_eq!(missing, (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()));
    }

    #[tokio::test]
    async fn any_service_can_be_last_and_an_error_of_it_is_an_answer() {
        let mut served = Served::default();
        served.router(Router::new().route("/a", get(async || "a")));
        let failing = service_fn(|_: Request<HttpBody>| async {
            Err::<Response<HttpBody>, _>(std::io::Error::other("broken"))
        });
        served.last(HttpService::new(failing));
        let service = served.service().unwrap();
        assert_eq!(ask(&service, "/a").await.0, StatusCode::OK);
        assert_eq!(ask(&service, "/b").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
