//! The trace of a request, from the caller through the server. Alone in its process: a place in the program that a thread without
//! a subscriber comes to first may be off for the subscriber of another one.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gossip::{
    BoxFuture, HeaderCase, StreamUse, Transport,
    http::{BoxError, Caller, HttpRequest, HttpResponse, HttpService, read_all},
};
use http::{HeaderValue, StatusCode};
use opentelemetry::{
    Context,
    trace::{SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tandem_net_http::{
    HttpServer, ServeLimits,
    client::{ClientLimits, Clients, Connect, Io, TCP_IDLE, Target},
    serve::{Connection, NoHook},
};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;

/// Opens pipes, whose other ends the test gets.
struct Pipes(mpsc::Sender<DuplexStream>);

impl Connect for Pipes {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, BoxError>> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(4096);
            self.0.send(theirs).await?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

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

/// One request, which the server answers with an error.
async fn exchange() {
    let failing =
        tower::service_fn(|_: HttpRequest| async { Err::<HttpResponse, BoxError>("no".into()) });
    let server = HttpServer::new(HttpService::new(failing), ServeLimits::default());
    let stop = CancellationToken::new();
    let clients = Clients::new(ClientLimits::default(), "test".to_owned(), &stop);
    let (opened, mut accepted) = mpsc::channel(1);
    let client = clients.client(Target {
        name: "server".to_owned(),
        host: HeaderValue::from_static("server"),
        prefix: String::new(),
        streams: StreamUse::KeptAlive,
        idle: TCP_IDLE,
        connect: Arc::new(Pipes(opened)),
    });
    let terms = server.limits().for_socket(HeaderCase::Lower);
    let serving = async {
        let io = accepted.recv().await.unwrap();
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
}

// Issue 12, 1.
#[tokio::test(start_paused = true)]
async fn the_span_of_a_server_is_the_child_of_its_callers() {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    exchange().await;

    let spans = ended.0.lock().unwrap().clone();
    let of = |kind| spans.iter().find(|span| span.span_kind == kind).unwrap();
    let (called, served) = (of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!(served.parent_span_id, called.span_context.span_id());
    assert_eq!(served.span_context.trace_id(), called.span_context.trace_id());
    for span in [called, served] {
        let said = format!("{:?}", span.attributes);
        assert_eq!(span.name, "GET");
        assert!(said.contains("/long/path") && !said.contains("query"), "{said}");
        assert!(
            said.contains("I64(500)") && matches!(span.status, Status::Error { .. }),
            "{span:?}"
        );
    }
}
