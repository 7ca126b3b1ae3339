//! The trace of a request, from the caller through the server.

use std::sync::Mutex;

use gossip::{
    Transport,
    http::{Caller, HttpService},
};
use http::StatusCode;
use opentelemetry::{
    Context,
    trace::{SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::serve::{Connection, HttpServer, NoHook, ServeLimits};

/// Keeps the spans that have ended.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Ended {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn caller() -> Caller {
    Caller { identity: None, transport: Transport::WebSocket, address: "here".into(), ip: None }
}

// Issue 12, 1.
#[tokio::test]
async fn the_span_of_a_server_is_the_child_of_its_callers() {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let failing = tower::service_fn(|_: gossip::http::HttpRequest| async {
        Err::<HttpResponse, _>(BoxError::from("no"))
    });
    let server = HttpServer::new(HttpService::new(failing), ServeLimits::default());
    let Bench { client, mut accept, stop, .. } = Bench::new(limits());
    let terms = server.limits().for_socket(gossip::HeaderCase::Lower);
    let serving = async {
        let Peer(io) = accept.next().await;
        server.serve(Connection { io, caller: caller(), terms }, &NoHook, &stop).await
    };
    let calling = async {
        let response = client.get("/long/path?and=query").await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        read_all(response.into_body(), 100).await.unwrap();
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serving, calling);
    assert!(served.is_none());

    let spans = ended.0.lock().unwrap().clone();
    let of = |kind| spans.iter().find(|span| span.span_kind == kind).unwrap();
    let (called, served) = (of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!(served.parent_span_id, called.span_context.span_id());
    assert_eq!(served.span_context.trace_id(), called.span_context.trace_id());
    for span in [called, served] {
        let said = format!("{:?}", span.attributes);
        assert_eq!(span.name, "GET");
        assert!(said.contains("/long/path") && !said.contains("query"), "{said}");
        assert!(said.contains("500") && matches!(span.status, Status::Error { .. }), "{span:?}");
    }
}
