//! What the file service answers.

mod files_support;

use std::{collections::HashSet, fs, num::NonZeroUsize};

use axum::{Router, body::Body};
use bytes::Bytes;
use files_support::{ask, body, content, from, store};
use futures::stream;
use gossip::{Identity, http::BoxError};
use http::{Method, Request, Response, StatusCode, header};
use services::files::{self, FileId, GROUP_BYTES, Outline, Store, StoreLimits, Uploads};
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

#[tokio::test]
async fn parts_conditions_and_their_statuses() {
    let (router, _dir) = service(Uploads::Anyone).await;
    let content = content(1000);
    let id = FileId::of(&content);
    ask(&router, upload(Method::POST, "/files", &content)).await;
    let (path, tag) = (format!("/files/{id}"), format!("\"{id}\""));
    let weak = format!("\"a\", W/{tag}");
    let part = |range: &'static str| vec![("range", range)];
    let cases: Vec<(Method, Vec<(&str, &str)>, StatusCode, Option<&str>, &[u8])> = vec![
        (
            Method::GET,
            part("bytes=0-0"),
            StatusCode::PARTIAL_CONTENT,
            Some("bytes 0-0/1000"),
            &content[..1],
        ),
        (
            Method::GET,
            part("bytes=990-"),
            StatusCode::PARTIAL_CONTENT,
            Some("bytes 990-999/1000"),
            &content[990..],
        ),
        (
            Method::GET,
            part("bytes=-5"),
            StatusCode::PARTIAL_CONTENT,
            Some("bytes 995-999/1000"),
            &content[995..],
        ),
        (
            Method::GET,
            part("bytes=5-5000"),
            StatusCode::PARTIAL_CONTENT,
            Some("bytes 5-999/1000"),
            &content[5..],
        ),
        (
            Method::GET,
            part("bytes=1000-"),
            StatusCode::RANGE_NOT_SATISFIABLE,
            Some("bytes */1000"),
            b"",
        ),
        (Method::GET, part("bytes=0-1,5-6"), StatusCode::OK, None, &content),
        (Method::GET, part("chunks=0-1"), StatusCode::OK, None, &content),
        (Method::HEAD, part("bytes=0-0"), StatusCode::OK, None, b""),
        (
            Method::GET,
            vec![("range", "bytes=0-0"), ("range", "bytes=1-1")],
            StatusCode::OK,
            None,
            &content,
        ),
        (
            Method::GET,
            vec![("range", "bytes=0-0"), ("if-range", &tag)],
            StatusCode::PARTIAL_CONTENT,
            Some("bytes 0-0/1000"),
            &content[..1],
        ),
        (
            Method::GET,
            vec![("range", "bytes=0-0"), ("if-range", "\"other\"")],
            StatusCode::OK,
            None,
            &content,
        ),
        (
            Method::GET,
            vec![("range", "bytes=0-0"), ("if-range", "Sat, 21 Nov 2026 12:23:09 GMT")],
            StatusCode::OK,
            None,
            &content,
        ),
        (Method::GET, vec![("if-none-match", &tag)], StatusCode::NOT_MODIFIED, None, b""),
        (Method::GET, vec![("if-none-match", &weak)], StatusCode::NOT_MODIFIED, None, b""),
        (Method::HEAD, vec![("if-none-match", "*")], StatusCode::NOT_MODIFIED, None, b""),
        (
            Method::GET,
            vec![("if-none-match", &tag), ("range", "bytes=0-0")],
            StatusCode::NOT_MODIFIED,
            None,
            b"",
        ),
        (Method::GET, vec![("if-none-match", "\"other\"")], StatusCode::OK, None, &content),
    ];
    for (method, headers, status, range, expected) in cases {
        let response = ask(&router, request(method.clone(), &path, &headers)).await;
        assert_eq!(response.status(), status, "{method} {headers:?}");
        assert_eq!(header(&response, "content-range"), range, "{method} {headers:?}");
        assert_eq!(header(&response, "etag"), Some(&*tag));
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            assert_eq!(header(&response, "cache-control"), None);
        }
        assert_eq!(body(response).await, expected, "{method} {headers:?}");
    }
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
    let (friend, stranger) = (Identity([1; 32]), Identity([2; 32]));
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
    let limits = StoreLimits {
        max_file_bytes: 9000,
        quota_bytes: 8192,
        uploads: NonZeroUsize::MIN,
        ..StoreLimits::default()
    };
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

    let never = Body::from_stream(stream::pending::<Result<Bytes, BoxError>>());
    let hanging = router.clone();
    let hanging = ask(&hanging, Request::post("/files").body(never).unwrap());
    let second = async {
        loop {
            let response = ask(&router, streamed(vec![Ok(content(8))])).await;
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                break response;
            }
        }
    };
    tokio::select! {
        response = hanging => panic!("{response:?}"),
        response = second => assert_eq!(header(&response, "retry-after"), Some("2")),
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the lock and eight bytes");
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
            let Ok(uri) = path.parse::<http::Uri>() else { continue };
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
