//! The header `traceparent` of W3C Trace Context, by which the spans of a caller and of its server belong to one trace.
//!
//! # Invariants
//!
//! * The header is sent only while spans are exported, and is read only then.
//! * Of what a caller says only the two IDs are taken. Its `tracestate`, which may be any text, is neither kept nor passed on,
//!   and it does not decide about what this node exports.

#[cfg(feature = "trace-context")]
pub(crate) use with_header::{adopt, hand_on};

#[cfg(not(feature = "trace-context"))]
pub(crate) use without_header::{adopt, hand_on};

#[cfg(not(feature = "trace-context"))]
mod without_header {
    use http::HeaderMap;
    use tracing::Span;

    pub(crate) const fn adopt(_span: &Span, _headers: &HeaderMap) {}

    pub(crate) const fn hand_on(_span: &Span, _headers: &mut HeaderMap) {}
}

#[cfg(feature = "trace-context")]
mod with_header {
    use http::{HeaderMap, HeaderValue};
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    /// Name of the header.
    const TRACEPARENT: &str = "traceparent";

    /// The version that is written, and the length of such a header.
    const VERSION: &str = "00";
    const LENGTH: usize = 55;

    /// Puts a span into the trace that a request names. One that names none, or not as it should, begins a trace.
    pub(crate) fn adopt(span: &Span, headers: &HeaderMap) {
        let named = headers.get(TRACEPARENT).and_then(|value| parse(value.to_str().ok()?));
        if let Some(parent) = named {
            // It fails where nobody exports the span.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    /// Names the trace of a span in a request, unless its sender did.
    pub(crate) fn hand_on(span: &Span, headers: &mut HeaderMap) {
        let context = span.context();
        let parent = context.span().span_context().clone();
        if parent.is_valid()
            && !headers.contains_key(TRACEPARENT)
            && let Ok(value) = HeaderValue::from_str(&format(&parent))
        {
            headers.insert(TRACEPARENT, value);
        }
    }

    fn format(parent: &SpanContext) -> String {
        let (trace, span) = (parent.trace_id(), parent.span_id());
        format!("{VERSION}-{trace}-{span}-{:02x}", parent.trace_flags().to_u8())
    }

    /// Reads a header of this version, or of a later one, which begins the same way.
    fn parse(text: &str) -> Option<SpanContext> {
        let is_hex =
            |part: &str| part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        let (known, later) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let mut part = |length| parts.next().filter(|part| part.len() == length && is_hex(part));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == "ff" || !(later.is_empty() || version != VERSION && later.starts_with('-')) {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let parent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        parent.is_valid().then_some(parent)
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;

        const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

        // The examples of the specification, sections 3.2 and 4.3.
        #[test]
        fn headers_are_read_as_the_specification_says() {
            assert_eq!(format(&parse(EXAMPLE).unwrap()), EXAMPLE);
            let later = format!("cc{}-what-the-future-will-be-like", &EXAMPLE[2..]);
            assert!(parse(&later).is_some());
            let wrong = [
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                "",
            ];
            for text in wrong {
                assert_eq!(parse(text), None, "{text}");
            }
        }

        proptest! {
            #[test]
            fn a_header_is_what_it_was(trace in 1_u128.., span in 1_u64.., flags: u8) {
                let (trace, span) = (TraceId::from(trace), SpanId::from(span));
                let flags = TraceFlags::new(flags);
                let parent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
                prop_assert_eq!(parse(&format(&parent)), Some(parent));
            }

            #[test]
            fn odd_text_is_no_header(text in ".{0,80}") {
                let _ = parse(&text);
            }
        }
    }
}
