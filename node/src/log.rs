//! Standard error: logs, and what a command has to say beside what it was asked for.
//!
//! # Invariants
//!
//! * Nothing here waits or fails, whatever standard error is: see [`Lines`].
//! * With [`LogFormat::Json`] every line is an object, also those that are not events, so that a program can read them all.
//! * Strangers do not write the log: a place in a library tells something once, and then rarely.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::HashMap,
    error::Error,
    io::{self, IsTerminal, Write},
    panic,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use runtime::Rarely;
use serde_json::json;
use tracing::{Event, Level, Metadata, callsite::Identifier};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter},
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::{Context, Filter, Layered, SubscriberExt},
    reload,
};

use crate::lines::Lines;

/// Longest time to write the last lines when the program ends. Chosen: well within the time of a stop.
const FLUSH_TIME: Duration = Duration::from_millis(300);

/// Writes to standard error. Nothing if the system has no thread or descriptor for it.
static STDERR: LazyLock<Option<Lines>> = LazyLock::new(|| {
    Lines::to(io::stderr(), |lost| {
        in_format(&format!("{lost} lines of the log were lost: they could not be written"))
    })
    .ok()
});

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// The form in force; text until a log begins.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// A text that is no event, in the form of the log.
fn in_format(text: &str) -> String {
    match FORMAT.get().copied().unwrap_or_default() {
        LogFormat::Text => text.to_owned(),
        LogFormat::Json => {
            let mut now = String::new();
            // A text takes everything.
            let _ = SystemTime.format_time(&mut Writer::new(&mut now));
            let line =
                json!({"timestamp": now, "level": "WARN", "message": text, "target": "tandem"});
            line.to_string()
        }
    }
}

/// Writes one line to standard error.
pub(crate) fn note(line: &str) {
    offer(format!("{}\n", in_format(line)).as_bytes());
}

/// Lines for standard error that were lost.
pub(crate) fn lost() -> u64 {
    STDERR.as_ref().map_or(0, Lines::lost)
}

/// Gives the last lines a moment to be written.
pub(crate) fn flush() {
    if let Some(lines) = STDERR.as_ref() {
        lines.flush(FLUSH_TIME);
    }
}

/// A layer that makes spans of what the program says, for somebody else than a reader of the log.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The filter in force, and the handle by which it is changed.
static FILTER: Mutex<Option<InForce>> = Mutex::new(None);

struct InForce {
    text: String,
    handle: reload::Handle<EnvFilter, Layered<Option<SpanLayer>, Registry>>,
}

/// The reason why a text is no filter of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no log filter{}: write for example info or tandem_net_ws=debug,warn", part.as_ref().map(|part| format!(", because of {part:?}")).unwrap_or_default())]
pub(crate) struct FilterError {
    text: String,
    /// The directive that is wrong, if there are several.
    part: Option<String>,
}

/// Reads a filter.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(text).map_err(|_| {
        let mut parts = text.split(',').map(str::trim);
        let wrong = parts.find(|part| EnvFilter::try_new(part).is_err());
        let part = wrong.filter(|part| *part != text).map(str::to_owned);
        FilterError { text: text.to_owned(), part }
    })
}

/// The filter in force; nothing before the log begins.
pub(crate) fn filter() -> String {
    let in_force = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
    in_force.as_ref().map(|filter| filter.text.clone()).unwrap_or_default()
}

/// Logs from now on what another filter lets through.
pub(crate) fn set_filter(text: &str) -> Result<(), FilterError> {
    let parsed = parse_filter(text)?;
    let mut in_force = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(filter) = in_force.as_mut()
        // The subscriber lives as long as the process.
        && filter.handle.reload(parsed).is_ok()
    {
        text.clone_into(&mut filter.text);
    }
    Ok(())
}

/// Logs from now on what the filter lets through, and has `spans` made, which the filter does not concern.
pub(crate) fn to_stderr(filter: &str, format: LogFormat, spans: Option<SpanLayer>) {
    let (layer, handle) = reload::Layer::new(EnvFilter::new(filter));
    let lines = tracing_subscriber::fmt::layer().with_writer(ToStderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Set once, as the log is.
    let _ = FORMAT.set(format);
    let lines = lines.with_filter(layer.and(LibrariesRarely::default()));
    let subscriber = tracing_subscriber::registry().with(spans).with(lines);
    // Somebody may have installed a log already, which then stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let mut in_force = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
        *in_force = Some(InForce { text: filter.to_owned(), handle });
    }
}

/// Has panics told like everything else, so that a thread that panics does not wait for a reader.
pub(crate) fn catch_panics() {
    panic::set_hook(Box::new(|panic| {
        let trace = Backtrace::capture();
        match trace.status() {
            BacktraceStatus::Captured => note(&format!("{panic}\n{trace}")),
            _ => note(&panic.to_string()),
        }
    }));
}

/// Lets each place in a library tell a warning, an error or a remark rarely: most of them are caused by what
/// peers send, and libraries write one for each. What an operator asks for below that level is not touched,
/// and neither is what this program says itself, which takes care of that where it says it.
#[derive(Debug, Default)]
struct LibrariesRarely {
    /// By the place in the program, so there are no more than it has.
    places: Mutex<HashMap<Identifier, Arc<Rarely>>>,
}

impl<S> Filter<S> for LibrariesRarely {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let about = event.metadata();
        if about.target().starts_with("tandem") || *about.level() > Level::INFO {
            return true;
        }
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(places.entry(about.callsite()).or_default())
        };
        let Some(left_out) = place.due() else { return false };
        if left_out > 0 {
            note(&format!("{left_out} lines of {} like the next were left out", about.target()));
        }
        true
    }

    // Without a word about it, calls below the level of the other filter would no longer be as cheap as they are.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

fn offer(lines: &[u8]) {
    if let Some(stderr) = STDERR.as_ref() {
        stderr.offer(lines);
    }
}

/// Where the logging library writes its events, each in one call.
#[derive(Clone, Copy, Debug)]
struct ToStderr;

impl Write for ToStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        offer(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for ToStderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// An error and what caused it, in one line.
pub(crate) fn in_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is let through.
    #[derive(Clone, Default)]
    struct Count(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target().to_owned());
        }
    }

    // Issue 8, 29: an error of a library for each bad message of a stranger.
    #[test]
    fn a_place_in_a_library_tells_once_what_this_program_tells_each_time() {
        let count = Count::default();
        let filtered = count.clone().with_filter(LibrariesRarely::default());
        let subscriber = tracing_subscriber::registry().with(filtered);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..100 {
                tracing::error!(target: "libp2p_gossipsub::behaviour", "a bad subscription");
                tracing::warn!(target: "tandem_net_ws", "ours");
                tracing::debug!(target: "yamux", "asked for");
            }
        });
        let told = count.0.lock().unwrap().clone();
        let of = |target: &str| told.iter().filter(|told| *told == target).count();
        assert_eq!(of("libp2p_gossipsub::behaviour"), 1);
        assert_eq!((of("tandem_net_ws"), of("yamux")), (100, 100));
    }
}
