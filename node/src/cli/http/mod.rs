//! `tandem http`: one request to a peer, over whatever leads there.
//!
//! # Invariants
//!
//! * Bodies are streamed in both directions; none is held whole.
//! * A body that breaks off is a failure, told with how much of it came.
//! * An answer of 400 or above is a failure with an exit code of its own, told after its body.

mod header_line;
mod target;
mod upload;

use std::{
    fmt::Write as _,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use futures::StreamExt;
use gossip::http::{HttpBody, HttpResponse, Timeout};
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt},
};

pub(crate) use self::{
    header_line::parse_header,
    target::{Target, TargetError},
};

use super::{args::HttpArgs, failure::Failure, progress, reach::Reach};

/// Length from which a body gets a progress bar. Chosen: shorter ones are there at once.
const LONG_BODY: u64 = 1024 * 1024;

/// Sends one request and prints the answer.
pub(crate) async fn http(args: HttpArgs) -> Result<ExitCode, Failure> {
    let (method, target) = args.what()?;
    let mut request = Request::new(match args.data.as_deref() {
        Some(data) => upload::body(data).await?,
        None => HttpBody::empty(),
    });
    *request.method_mut() = method.unwrap_or(match (args.head, &args.data) {
        (true, _) => Method::HEAD,
        (false, Some(_)) => Method::POST,
        (false, None) => Method::GET,
    });
    *request.uri_mut() = target.path.parse().map_err(|error| Failure::Usage {
        text: format!("{:?} is no path: {error}", target.path),
    })?;
    if args.data.is_some() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
    }
    for (name, value) in args.headers()? {
        request.headers_mut().insert(name, value);
    }
    if let Some(limit) = args.max_time {
        request.extensions_mut().insert(Timeout(Duration::from_secs_f64(limit)));
    }
    let reach = Reach::start(std::slice::from_ref(&target.peer), args.cacert.as_deref()).await?;
    let outcome = async {
        let response = reach.client(&target.peer)?.send(request).await?;
        show(&args, response).await
    };
    let outcome = outcome.await;
    reach.stop().await;
    outcome
}

/// Prints a response, as the arguments want it.
async fn show(args: &HttpArgs, response: HttpResponse) -> Result<ExitCode, Failure> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if args.fail && is_error {
        return Err(Failure::Status { status });
    }
    let (name, out) = open(args.out.as_deref()).await?;
    let mut out = tokio::io::BufWriter::new(out);
    let wrote = |source| Failure::Write { path: name.clone(), source };
    if args.include || args.head {
        out.write_all(head(&response).as_bytes()).await.map_err(wrote)?;
    }
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let bar = bar(length, args.out.is_some());
    let mut body = response.into_body().into_data_stream();
    let mut received = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|source| Failure::Body { received, source })?;
        out.write_all(&chunk).await.map_err(wrote)?;
        received += chunk.len() as u64;
        bar.set_position(received);
    }
    out.flush().await.map_err(wrote)?;
    bar.finish_and_clear();
    if is_error { Err(Failure::Status { status }) } else { Ok(ExitCode::SUCCESS) }
}

/// Where the answer goes.
async fn open(
    path: Option<&Path>,
) -> Result<(PathBuf, Box<dyn AsyncWrite + Send + Unpin>), Failure> {
    let Some(path) = path else {
        return Ok((PathBuf::from("standard output"), Box::new(tokio::io::stdout())));
    };
    let file = File::create(path).await;
    let file = file.map_err(|source| Failure::Write { path: path.to_owned(), source })?;
    Ok((path.to_owned(), Box::new(file)))
}

fn head(response: &HttpResponse) -> String {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for (name, value) in response.headers() {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    }
    head.push_str("\r\n");
    head
}

/// A bar on standard error for a long body, unless it would run into the body itself.
fn bar(length: Option<u64>, to_file: bool) -> ProgressBar {
    let beside = to_file || !std::io::stdout().is_terminal();
    let long = length.is_none_or(|length| length >= LONG_BODY);
    if !(beside && long) {
        return ProgressBar::hidden();
    }
    progress::bar(length, ProgressDrawTarget::stderr())
}
