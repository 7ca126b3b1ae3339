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

#[cfg(any(feature = "ws", feature = "websocket"))]
use std::time::Duration;
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
#[cfg(any(feature = "ws", feature = "websocket"))]
use {
    gossip::http::HttpRequest,
    http::{Method, header},
    net_tcp::origins::PageOrigins,
    tower::Layer,
    tower_http::cors::{AllowOrigin, CorsLayer},
};

use super::NodeBuilder;

/// The routers of a node, the service behind them, and the limits on both.
#[derive(Debug, Default)]
pub(super) struct Served {
    routers: Vec<Router>,
    last: Option<HttpService>,
    limits: ServeLimits,
    /// The first limit of a protection that cannot be used.
    wrong: Option<LimitError>,
    #[cfg(any(feature = "ws", feature = "websocket"))]
    page_origins: PageOrigins,
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

    /// Has pages of these origins read the answers (CORS).
    #[cfg(any(feature = "ws", feature = "websocket"))]
    pub(super) fn for_pages(&mut self, origins: PageOrigins) {
        self.page_origins = origins;
    }

    /// Checks the durations among the limits.
    pub(super) fn check(&self) -> Result<(), LimitError> {
        self.limits.check()?;
        self.wrong.map_or(Ok(()), Err)
    }

    /// The server of it; `None` if there is nothing to serve.
    pub(super) fn server(self, context: ServeContext) -> Option<HttpServer> {
        let limits = self.limits.clone();
        #[cfg(any(feature = "ws", feature = "websocket"))]
        let origins = self.page_origins.clone();
        let service = self.service()?;
        #[cfg(any(feature = "ws", feature = "websocket"))]
        let service = readable_by_pages(service, origins);
        Some(HttpServer::within(service, limits, context))
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

/// A service whose answers pages of these origins may read. Other requests, those of all programs that are no pages
/// included, reach it as they are.
#[cfg(any(feature = "ws", feature = "websocket"))]
fn readable_by_pages(service: HttpService, origins: PageOrigins) -> HttpService {
    if origins.is_empty() {
        return service;
    }
    let listed = origins.clone();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _head| listed.lets_in(origin)))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT])
        .allow_headers([header::CONTENT_TYPE, header::IF_NONE_MATCH, header::RANGE])
        .expose_headers([header::CONTENT_RANGE, header::ETAG, header::RETRY_AFTER])
        .max_age(PREFLIGHT_TIME);
    let answering = cors.layer(service.clone());
    HttpService::new(service_fn(move |request: HttpRequest| {
        let is_page =
            request.headers().get(header::ORIGIN).is_some_and(|from| origins.lets_in(from));
        let (answering, service) = (answering.clone(), service.clone());
        async move {
            match is_page {
                true => answering.oneshot(request).await,
                false => service.oneshot(request).await,
            }
        }
    }))
}

/// Time for which a browser remembers what a page may ask for. Chosen: what browsers allow at least.
#[cfg(any(feature = "ws", feature = "websocket"))]
const PREFLIGHT_TIME: Duration = Duration::from_secs(600);

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

    #[cfg(any(feature = "ws", feature = "websocket"))]
    #[tokio::test]
    async fn pages_of_listed_origins_may_read_answers_and_no_others() {
        let mut served = Served::default();
        served.router(Router::new().route("/a", get(async || "a")));
        let origins = PageOrigins::default().with("https://app.example".parse().unwrap());
        let service = readable_by_pages(served.service().unwrap(), origins);
        let told = async |method: &str, origin: Option<&str>| {
            let mut request = Request::builder().uri("/a").method(method);
            if let Some(origin) = origin {
                request = request.header("origin", origin);
                request = request.header("access-control-request-method", "PUT");
            }
            let request = request.body(HttpBody::empty()).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            let allowed = response.headers().get("access-control-allow-origin").cloned();
            (response.status().as_u16(), allowed.map(|value| value.to_str().unwrap().to_owned()))
        };
        let site = Some("https://app.example".to_owned());
        assert_eq!(told("GET", Some("https://app.example")).await, (200, site.clone()));
        assert_eq!(told("OPTIONS", Some("https://app.example")).await, (200, site));
        for origin in [None, Some("https://evil.example"), Some("null")] {
            assert_eq!(told("GET", origin).await, (200, None), "{origin:?}");
            assert_eq!(told("OPTIONS", origin).await, (405, None), "{origin:?}");
        }
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
