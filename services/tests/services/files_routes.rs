//! The answers of the file service.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, fs, num::NonZeroUsize};

use crate::files_support::{ask, body, content, from, store};
use axum::{Router, body::Body};
use bytes::Bytes;
use futures::stream;
use gossip::{Identity, http::BoxError};
use http::{Method, Request, Response, StatusCode, header};
use tandem_services::files::{self, FileId, GROUP_BYTES, Outline, Store, StoreLimits, Uploads};
use tempfile::{TempDir, tempdir};

async fn service(uploads: Uploads) -> (Router, TempDir) {
    let dir = tempdir().unwrap();
    (files::router(store(dir.path()).await, uploads), dir)
}

fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn upload(method: Method, path: &str, content: &Bytes) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::from(content.clone())).unwrap()
}

#[track_caller]
fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn an_upload_is_answered_with_its_name_and_place_and_a_second_one_with_the_same() {
    let (router, _dir) = service(Uploads::Anyone).await;
    let content = content(3_000_000);
    let id = FileId::of(&content);
    for (method, status) in [(Method::POST, StatusCode::CREATED), (Method::PUT, StatusCode::OK)] {
        let response = ask(&router, upload(method, "/files", &content)).await;
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "location"), Some(&*format!("/files/{id}")));
        let answer: serde_json::Value = serde_json::from_slice(&body(response).await).unwrap();
        assert_eq!(answer, serde_json::json!({ "id": id.to_string(), "bytes": 3_000_000 }));
    }
    let response = ask(&router, upload(Method::PUT, &format!("/files/{id}"), &content)).await;
    assert_eq!(response.status(), StatusCode::OK);

    for method in [Method::GET, Method::HEAD] {
        let response = ask(&router, request(method.clone(), &format!("/files/{id}"), &[])).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-length"), Some("3000000"));
        assert_eq!(header(&response, "etag"), Some(&*format!("\"{id}\"")));
        assert_eq!(header(&response, "accept-ranges"), Some("bytes"));
        assert_eq!(header(&response, "content-type"), Some("application/octet-stream"));
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        let cache = "public, max-age=31536000, immutable";
        assert_eq!(header(&response, "cache-control"), Some(cache));
        let expected = if method == Method::GET { content.clone() } else { Bytes::new() };
        assert_eq!(body(response).await, expected);
    }
}

/// A file of a thousand bytes.
struct Thousand {
    router: Router,
    content: Bytes,
    path: String,
    tag: String,
    _dir: TempDir,
}

impl Thousand {
    async fn new() -> Self {
        let (router, dir) = service(Uploads::Anyone).await;
        let content = content(1000);
        let id = FileId::of(&content);
        ask(&router, upload(Method::POST, "/files", &content)).await;
        Self { router, content, path: format!("/files/{id}"), tag: format!("\"{id}\""), _dir: dir }
    }

    async fn ask(&self, method: Method, headers: &[(&str, &str)]) -> Response<Body> {
        let response = ask(&self.router, request(method, &self.path, headers)).await;
        assert_eq!(header(&response, "etag"), Some(&*self.tag), "{headers:?}");
        response
    }

    /// That the answer is this part of the file.
    async fn check_part(&self, headers: &[(&str, &str)], part: std::ops::Range<usize>) {
        let response = self.ask(Method::GET, headers).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{headers:?}");
        let range = format!("bytes {}-{}/1000", part.start, part.end - 1);
        assert_eq!(header(&response, "content-range"), Some(&*range), "{headers:?}");
        assert_eq!(header(&response, "content-length"), Some(&*part.len().to_string()));
        assert_eq!(body(response).await, self.content[part]);
    }

    /// That the answer is the whole file.
    async fn check_whole(&self, headers: &[(&str, &str)]) {
        let response = self.ask(Method::GET, headers).await;
        assert_eq!(response.status(), StatusCode::OK, "{headers:?}");
        assert_eq!(header(&response, "content-range"), None, "{headers:?}");
        assert_eq!(body(response).await, self.content, "{headers:?}");
    }

    /// That the answer is that nothing changed.
    async fn check_unchanged(&self, headers: &[(&str, &str)]) {
        for method in [Method::GET, Method::HEAD] {
            let response = self.ask(method, headers).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{headers:?}");
            assert!(body(response).await.is_empty(), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn a_single_range_is_answered_with_that_part() {
    let file = Thousand::new().await;
    file.check_part(&[("range", "bytes=0-0")], 0..1).await;
    file.check_part(&[("range", "bytes=990-")], 990..1000).await;
    file.check_part(&[("range", "bytes=-5")], 995..1000).await;
    file.check_part(&[("range", "bytes=5-5000")], 5..1000).await;
    let response = file.ask(Method::GET, &[("range", "bytes=1000-")]).await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&response, "content-range"), Some("bytes */1000"));
    assert_eq!(header(&response, "cache-control"), None, "it is not kept as if it were the file");
    assert!(body(response).await.is_empty());
}

#[tokio::test]
async fn other_ranges_are_answered_with_the_whole() {
    let file = Thousand::new().await;
    file.check_whole(&[("range", "bytes=0-1,5-6")]).await;
    file.check_whole(&[("range", "chunks=0-1")]).await;
    file.check_whole(&[("range", "bytes=0-0"), ("range", "bytes=1-1")]).await;
    let response = file.ask(Method::HEAD, &[("range", "bytes=0-0")]).await;
    assert_eq!(response.status(), StatusCode::OK, "a range is a matter of GET alone");
    assert_eq!(header(&response, "content-length"), Some("1000"));
}

#[tokio::test]
async fn conditions_hold_for_the_tag_of_the_file() {
    let file = Thousand::new().await;
    let (tag, weak) = (&*file.tag, &*format!("\"a\", W/{}", file.tag));
    let date = "Sat, 21 Nov 2026 12:23:09 GMT";
    file.check_part(&[("range", "bytes=0-0"), ("if-range", tag)], 0..1).await;
    file.check_whole(&[("range", "bytes=0-0"), ("if-range", "\"other\"")]).await;
    file.check_whole(&[("range", "bytes=0-0"), ("if-range", date)]).await;
    file.check_unchanged(&[("if-none-match", tag)]).await;
    file.check_unchanged(&[("if-none-match", weak)]).await;
    file.check_unchanged(&[("if-none-match", "*")]).await;
    file.check_unchanged(&[("if-none-match", tag), ("range", "bytes=0-0")]).await;
    file.check_whole(&[("if-none-match", "\"other\"")]).await;
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let (router, _dir) = service(Uploads::Anyone).await;
    let response = ask(&router, upload(Method::POST, "/files", &Bytes::new())).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let path = format!("/files/{}", FileId::of(b""));
    let response = ask(&router, request(Method::GET, &path, &[])).await;
    assert_eq!(header(&response, "content-length"), Some("0"));
    let response = ask(&router, request(Method::GET, &path, &[("range", "bytes=0-")])).await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn the_outline_leads_to_the_name() {
    let (router, dir) = service(Uploads::Anyone).await;
    for bytes in [0, 5, GROUP_BYTES as usize, GROUP_BYTES as usize + 1] {
        let content = content(bytes);
        let id = FileId::of(&content);
        ask(&router, upload(Method::POST, "/files", &content)).await;
        let path = format!("/files/{id}/outline");
        let response = ask(&router, request(Method::GET, &path, &[])).await;
        let tag = header(&response, "etag").unwrap().to_owned();
        let outline = Outline::parse(id, &body(response).await).unwrap();
        assert_eq!(outline.bytes(), bytes as u64);
        let response = ask(&router, request(Method::GET, &path, &[("if-none-match", &tag)])).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    }
    let id = FileId::of(&content(GROUP_BYTES as usize + 1));
    fs::remove_file(dir.path().join(format!("{id}.outline"))).unwrap();
    let path = format!("/files/{id}/outline");
    let response = ask(&router, request(Method::GET, &path, &[])).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let path = format!("/files/{}/outline", FileId::of(b"missing"));
    let response = ask(&router, request(Method::GET, &path, &[])).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn content_under_another_name_is_refused_and_not_kept() {
    let (router, dir) = service(Uploads::Anyone).await;
    let path = format!("/files/{}", FileId::of(b"promised"));
    let response = ask(&router, upload(Method::PUT, &path, &content(2_000_000))).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the lock file");
    let response = ask(&router, request(Method::GET, &path, &[])).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn uploads_are_taken_from_whom_the_operator_trusts() {
    let (friend, stranger) = (Identity::from_ed25519([1; 32]), Identity::from_ed25519([2; 32]));
    let content = content(10);
    let paths = [(Method::POST, "/files".to_owned()), (Method::PUT, "/files".to_owned())];
    let mut paths = paths.to_vec();
    paths.push((Method::PUT, format!("/files/{}", FileId::of(&content))));
    for (method, path) in paths {
        let (off, _dir) = service(Uploads::default()).await;
        let friends = Uploads::FromPeers(HashSet::from([friend]));
        let (friends, _other_dir) = service(friends).await;
        let cases = [
            (&off, Some(friend), StatusCode::FORBIDDEN),
            (&friends, Some(stranger), StatusCode::FORBIDDEN),
            (&friends, None, StatusCode::UNAUTHORIZED),
            (&friends, Some(friend), StatusCode::CREATED),
        ];
        for (router, identity, status) in cases {
            let upload = upload(method.clone(), &path, &content);
            let response = ask(router, from(identity, upload)).await;
            assert_eq!(response.status(), status, "{method} {path} {identity:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_upload_is_not_read() {
    let (router, _dir) = service(Uploads::Off).await;
    let never = Body::from_stream(stream::pending::<Result<Bytes, BoxError>>());
    let request = Request::post("/files").body(never).unwrap();
    assert_eq!(ask(&router, request).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn limits_have_their_statuses() {
    let dir = tempdir().unwrap();
    let limits = StoreLimits::default()
        .with_max_file_bytes(9000)
        .with_quota_bytes(8192)
        .with_uploads(NonZeroUsize::MIN);
    let router = files::router(Store::open(dir.path(), limits).await.unwrap(), Uploads::Anyone);
    let streamed = |pieces: Vec<Result<Bytes, BoxError>>| {
        Request::post("/files").body(Body::from_stream(stream::iter(pieces))).unwrap()
    };
    let never = Body::from_stream(stream::pending::<Result<Bytes, BoxError>>());
    let announced = Request::post("/files").header(header::CONTENT_LENGTH, "9001");
    let announced = announced.body(never).unwrap();
    assert_eq!(ask(&router, announced).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let long = streamed(vec![Ok(content(100)), Ok(content(9000))]);
    assert_eq!(ask(&router, long).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let full = streamed(vec![Ok(content(8193))]);
    assert_eq!(ask(&router, full).await.status(), StatusCode::INSUFFICIENT_STORAGE);
    let broken = streamed(vec![Ok(content(8)), Err("cut".into())]);
    assert_eq!(ask(&router, broken).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the lock file");

    let never = Body::from_stream(stream::pending::<Result<Bytes, BoxError>>());
    let hanging = router.clone();
    let hanging = ask(&hanging, Request::post("/files").body(never).unwrap());
    let second = ask(&router, streamed(vec![Ok(content(8))]));
    tokio::select! {
        biased;
        response = hanging => panic!("{response:?}"),
        response = second => {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(header(&response, "retry-after"), Some("2"));
        }
    }
}

/// Two hundred ways to write a name that is a path.
fn traversals(secret: &str, id: &FileId) -> Vec<String> {
    let ups = [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%252e%252e",
        "..%00",
        "%c0%ae%c0%ae",
        "....",
        "..%5c",
        "..%2f",
        "%uff0e%uff0e",
        "%e2%80%a5",
        "~",
        ".",
        "%2e",
        "..;",
        "..%20",
        "..%09",
        "%00..",
        "..%ef%bc%8f",
    ];
    let slashes = ["/", "%2f", "%2F", "%5c", "%252f"];
    let mut texts = Vec::new();
    for up in ups {
        for slash in slashes {
            texts.push(format!("{up}{slash}secret"));
            texts.push(format!("{id}{slash}{up}{slash}{up}{slash}secret"));
        }
    }
    texts.extend([
        secret.replace('/', "%2f"),
        format!("/{secret}"),
        format!("file:%2f%2f{secret}"),
        format!("{id}%00"),
        format!("{id}.outline"),
        format!("{id}%2foutline"),
        id.to_string().to_uppercase(),
        "lock".into(),
        "put-a.part".into(),
        "a".repeat(60_000),
        "%f0%9f%92%a9".repeat(100),
        "con".into(),
        "-".into(),
        "%0d%0aSet-Cookie:x=1".into(),
        "%ff%fe".into(),
        "".into(),
    ]);
    texts
}

#[tokio::test]
async fn no_text_from_the_wire_becomes_a_path() {
    let (router, dir) = service(Uploads::Anyone).await;
    let secret = dir
        .path()
        .with_file_name(format!("{}-secret", dir.path().file_name().unwrap().to_str().unwrap()));
    fs::write(&secret, b"secret").unwrap();
    let content = content(10);
    ask(&router, upload(Method::POST, "/files", &content)).await;
    fs::write(dir.path().join("put-a.part"), b"secret").unwrap();
    fs::write(dir.path().join("secret"), b"secret").unwrap();
    let texts = traversals(secret.to_str().unwrap(), &FileId::of(&content));
    assert!(texts.len() >= 200);
    for text in texts {
        for path in [format!("/files/{text}"), format!("/files/{text}/outline")] {
            let uri: http::Uri = path.parse().unwrap();
            for method in [Method::GET, Method::HEAD, Method::PUT] {
                let mut request = upload(method.clone(), "/", &content);
                *request.uri_mut() = uri.clone();
                let response = ask(&router, request).await;
                assert!(response.status().is_client_error(), "{method} {path}: {response:?}");
                assert!(!body(response).await.windows(6).any(|part| part == b"secret"), "{path}");
            }
        }
    }
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut expected = vec![
        FileId::of(&content).to_string().into(),
        "lock".into(),
        "put-a.part".into(),
        std::ffi::OsString::from("secret"),
    ];
    expected.sort();
    assert_eq!(names, expected);
    fs::remove_file(secret).unwrap();
}
