//! What a node serves over HTTP, put together of routers.
//!
//! ```text
//!   router ──does not know the path──▶ next router ─▶ … ─▶ last service ─▶ 404 in the words of existing nodes
//! ```
//!
//! # Invariants
//!
//! * Routers are asked in the order in which they were given, so none hides what came before it.
//! * Every router is behind a protection; what serves without one was given so.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use axum::{Router, body::Body, extract::Request};
use gossip::{
    GossipNode,
    http::{HttpBody, HttpService},
};
use http::{Response, StatusCode};
use net_http::reply;
use tower::{Service, ServiceExt, service_fn};

/// Certificates and the key to them, for HTTPS on the WebSocket port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates, the node's own first, in PEM.
    pub cert: PathBuf,
    /// The key to the first one, in PEM.
    pub key: PathBuf,
}

/// Is told the node once it runs. See [`NodeBuilder::on_start`](crate::NodeBuilder::on_start).
pub(crate) type OnStart = Box<dyn FnOnce(&Arc<dyn GossipNode>) + Send>;

/// What a node serves.
#[derive(Debug, Default)]
pub(crate) struct Served {
    routers: Vec<Router>,
    last: Option<HttpService>,
}

impl Served {
    /// Asks one more router, after those that were given before.
    pub(crate) fn router(&mut self, router: Router) {
        self.routers.push(router);
    }

    /// Asks a service for what no router knows.
    pub(crate) fn last(&mut self, service: HttpService) {
        self.last = Some(service);
    }

    /// All of it as one service; `None` if there is nothing.
    pub(crate) fn service(self) -> Option<HttpService> {
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

/// A service that answers also where `service` fails.
fn answering(
    service: HttpService,
) -> impl Service<Request, Response = Response<Body>, Error = Infallible, Future: Send> + Clone {
    service_fn(move |request: Request| {
        let service = service.clone();
        async move {
            let answered = service.oneshot(request.map(HttpBody::new)).await;
            Ok(answered.map(|response| response.map(Body::new)).unwrap_or_else(|error| {
                tracing::warn!(%error, "an HTTP service failed");
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
