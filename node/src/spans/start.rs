//! From the first line of the log to the last span: the parts in their order.
//!
//! # Invariants
//!
//! * Spans are queued from the beginning, and exported once the node has an identity.

use std::{path::Path, sync::Arc, time::Duration};

use gossip::{NodeAddress, http::HttpAddressError};
use net_http::client::{ClientLimits, Clients};
use net_tcp::tls::{CertificateError, Trust, read_certificates};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter as _},
};
use runtime::{Shutdown, TaskSet};
use tandem::Running;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::FilterFn};

use super::{collector::Collector, counts::SpanCounts, export::Export, messages, queue::Queue};
use crate::log::SpanLayer;

/// Name of the service that spans carry.
const SERVICE: &str = "tandem";

/// Where the exporter believes that the collector is. Only the path counts, as the client knows the rest.
const ENDPOINT: &str = "http://collector/v1/traces";

/// Events and attributes of a span. Chosen: every span of this program has far less, and what its libraries add is bounded.
const MAX_PARTS: u32 = 64;

/// Longest time for the last spans when the node stops. Chosen: a little more than the exporter takes for them.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Longest time for the connection to the collector to close then. Chosen: it is idle.
const CLOSE_TIME: Duration = Duration::from_millis(200);

/// Why spans can't be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SpanError {
    /// The address.
    #[error(transparent)]
    Address(#[from] HttpAddressError),
    /// The certificates that `tls_ca` names.
    #[error(transparent)]
    Roots(#[from] CertificateError),
    /// The library refused its configuration, which may come from variables of the environment.
    #[error("the exporter of spans cannot be set up")]
    Exporter(#[from] ExporterBuildError),
}

/// Spans that are queued, and not yet exported.
pub(crate) struct Spans {
    queue: Queue,
    spans: mpsc::Receiver<SpanData>,
    counts: SpanCounts,
    /// Makes spans of what the program says; ends with the process, as its log does.
    provider: SdkTracerProvider,
}

/// The tasks that export spans.
#[derive(Debug)]
pub(crate) struct Exporting {
    tasks: TaskSet,
    clients: Clients,
    /// Dropped last: without it nothing makes spans.
    _provider: SdkTracerProvider,
}

impl Spans {
    /// Begins to queue spans, and returns the layer of the log that makes them.
    pub(crate) fn begin(counts: &SpanCounts) -> (Option<Self>, Option<SpanLayer>) {
        let (queue, spans) = Queue::new(counts);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_max_events_per_span(MAX_PARTS)
            .with_max_attributes_per_span(MAX_PARTS)
            .with_resource(Resource::builder_empty().build())
            .with_span_processor(queue.clone())
            .build();
        let is_ours =
            FilterFn::new(|about| about.is_span() && about.target().starts_with("tandem"))
                .with_max_level_hint(LevelFilter::DEBUG);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SERVICE))
            .with_threads(false)
            .with_location(false)
            .with_tracked_inactivity(false)
            .with_filter(is_ours);
        let spans = Self { queue, spans, counts: counts.clone(), provider };
        (Some(spans), Some(Box::new(layer)))
    }

    /// Exports to `collector`. The certificates of `roots` are trusted besides those of the system.
    pub(crate) fn export(
        self,
        collector: &NodeAddress,
        roots: Option<&Path>,
        running: &Running,
    ) -> Result<Exporting, SpanError> {
        let Self { queue, spans, counts, provider } = self;
        let roots = roots.map(read_certificates).transpose()?.unwrap_or_default();
        let (broadcaster, local) = (running.broadcaster().clone(), running.identity());
        // Of their own, and not the node's: the last spans go when that has stopped.
        let parent = CancellationToken::new();
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION")).to_owned();
        let clients = Clients::new(ClientLimits::default(), agent, &parent);
        let trust = Arc::new(Trust::new(roots, None));
        let client = net_ws::http_client(collector, &clients, &trust, broadcaster.environment())?;
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(ENDPOINT)
            .with_http_client(Collector(client))
            .build()?;
        exporter.set_resource(
            &Resource::builder_empty()
                .with_service_name(SERVICE)
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .with_attribute(KeyValue::new("service.instance.id", local.to_string()))
                .build(),
        );
        let tasks = TaskSet::new(&parent);
        let export = Export::new(spans, exporter, counts);
        tasks.spawn_lasting("span exporter", |cancel| export.run(cancel));
        tasks.spawn_lasting("message spans", |cancel| {
            messages::tell(broadcaster, local, queue, cancel)
        });
        Ok(Exporting { tasks, clients, _provider: provider })
    }
}

impl Exporting {
    /// Exports what is queued, and ends.
    pub(crate) async fn stop(self) -> Shutdown {
        self.tasks.stop(STOP_TIME).await.and(self.clients.stop(CLOSE_TIME).await)
    }
}
