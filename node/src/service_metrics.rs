//! The counters of the services in the box, as metrics.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use services::metrics::{Refused, Service, ServiceMetrics};

/// Adds the counters of services to a registry: requests, refusals, bytes, and requests under way. `docs/running.md` lists the
/// names.
pub fn register_service_metrics(metrics: &ServiceMetrics, registry: &mut Registry) {
    registry.register_collector(Box::new(Services(metrics.clone())));
}

#[derive(Debug)]
struct Services(ServiceMetrics);

impl Collector for Services {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(metrics) = self;
        type Count = fn(&ServiceMetrics, Service) -> u64;
        let counters: [(&str, &str, Count); 3] = [
            ("service_requests", "Requests to services in the box", ServiceMetrics::requests),
            (
                "service_received_bytes",
                "Bytes of requests to services, as far as they were read",
                ServiceMetrics::received_bytes,
            ),
            (
                "service_sent_bytes",
                "Bytes of answers of services, as far as they were sent",
                ServiceMetrics::sent_bytes,
            ),
        ];
        for (name, help, count) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for service in Service::ALL {
                let count = ConstCounter::new(count(metrics, service));
                count.encode(family.encode_family(&[("service", service.label())])?)?;
            }
        }
        let help = "Requests that services refused, by reason";
        let mut family =
            encoder.encode_descriptor("service_refused", help, None, MetricType::Counter)?;
        for service in Service::ALL {
            for why in Refused::ALL {
                let labels = [("reason", why.label()), ("service", service.label())];
                let count = ConstCounter::new(metrics.refused(service, why));
                count.encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Requests to services that are under way, up to the last byte of the answer";
        let mut family =
            encoder.encode_descriptor("service_in_flight", help, None, MetricType::Gauge)?;
        for service in Service::ALL {
            let count = i64::try_from(metrics.in_flight(service)).unwrap_or(i64::MAX);
            let labels = [("service", service.label())];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
