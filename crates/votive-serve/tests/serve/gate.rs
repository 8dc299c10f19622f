//! Who is refused.

use crate::browser::{Browser, send};
use crate::running::{Running, fill};

/// Every page and the endpoint, with something that a program without the token might send.
const PATHS: &[&str] =
    &["/", "/compare?rater=ann", "/items", "/items/1", "/results", "/style.css", "/compare.js", "/nowhere"];

fn status(server: &Running, request: &str) -> u16 {
    send(server.port, request.as_bytes()).map_or(0, |reply| reply.status)
}

#[test]
fn without_the_token_nothing_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 2);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let host = format!("Host: 127.0.0.1:{}\r\nConnection: close\r\n", server.port);
    let wrong_cookie = format!("Cookie: votive-{}={}\r\n", server.port, "0".repeat(64));
    for path in PATHS {
        for cookie in ["", &wrong_cookie] {
            let reply =
                send(server.port, format!("GET {path} HTTP/1.1\r\n{host}{cookie}\r\n").as_bytes()).unwrap();
            assert_eq!(reply.status, 403, "{path}");
            assert!(!reply.text().contains("prompt 0"), "{path}");
        }
        let is_there = *path != "/nowhere";
        assert_eq!(browser.get(path).status, if is_there { 200 } else { 404 }, "{path}");
    }
    for query in ["token=", "token=0", &format!("token={}", "0".repeat(64)), &format!("x={}", server.token)] {
        assert_eq!(status(&server, &format!("GET /?{query} HTTP/1.1\r\n{host}\r\n")), 403, "{query}");
    }
    // The token opens the first page, and is no key to another.
    assert_eq!(status(&server, &format!("GET /items?token={} HTTP/1.1\r\n{host}\r\n", server.token)), 403);
    // The token is not the cookie.
    let cookie = format!("Cookie: votive-{}={}\r\n", server.port, server.token);
    assert_eq!(status(&server, &format!("GET / HTTP/1.1\r\n{host}{cookie}\r\n")), 403);
    // The endpoint wants the key, and a cookie is none.
    for key in ["", "Authorization: Bearer 0\r\n", "Authorization: Basic 0\r\n", "Authorization: \r\n"] {
        let reply =
            send(server.port, format!("GET /v1/models HTTP/1.1\r\n{}{key}\r\n", browser.lines()).as_bytes());
        let reply = reply.unwrap();
        assert_eq!(reply.status, 401, "{key}");
        assert!(reply.text().contains("\"invalid_api_key\""), "{}", reply.text());
    }
    let key = format!("Authorization: Bearer {}\r\n", server.token);
    assert_eq!(status(&server, &format!("GET /v1/models HTTP/1.1\r\n{host}{key}\r\n")), 200);
    // Nor is the key a cookie.
    assert_eq!(status(&server, &format!("GET /items HTTP/1.1\r\n{host}{key}\r\n")), 403);
}

#[test]
fn a_server_of_another_name_is_not_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 2);
    let server = Running::of_store(&path);
    let port = server.port;
    let browser = Browser::open(&server);
    let cookie = browser.lines();
    let cookie = cookie.lines().find(|line| line.starts_with("Cookie")).unwrap();
    let key = format!("Authorization: Bearer {}", server.token);
    let get = |path: &str, hosts: &str| {
        status(
            &server,
            &format!("GET {path} HTTP/1.1\r\n{hosts}{cookie}\r\n{key}\r\nConnection: close\r\n\r\n"),
        )
    };
    let own = format!("127.0.0.1:{port}");
    for host in [
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        "127.0.0.1".to_owned(),
        format!("127.0.0.1:{}", port ^ 1),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("user@127.0.0.1:{port}"),
        format!("0.0.0.0:{port}"),
        String::new(),
    ] {
        assert_eq!(get("/items", &format!("Host: {host}\r\n")), 421, "{host}");
        assert_eq!(get("/v1/models", &format!("Host: {host}\r\n")), 421, "{host}");
    }
    for host in [own.clone(), format!("localhost:{port}"), format!("LOCALHOST:{port}")] {
        assert_eq!(get("/items", &format!("Host: {host}\r\n")), 200, "{host}");
        assert_eq!(get("/v1/models", &format!("Host: {host}\r\n")), 200, "{host}");
    }
    // Without a host, with two, or with one in the address and another in the head.
    assert!(matches!(get("/items", ""), 400 | 421));
    assert_eq!(get("/items", &format!("Host: {own}\r\nHost: evil.example\r\n")), 421);
    assert_eq!(get(&format!("http://evil.example:{port}/items"), &format!("Host: {own}\r\n")), 421);
}

#[test]
fn other_sites_can_send_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 2);
    let server = Running::of_store(&path);
    let port = server.port;
    let browser = Browser::open(&server);
    let comparison = browser.comparison("ann").unwrap();
    let fields: Vec<String> = comparison.fields("left").iter().map(|(n, v)| format!("{n}={v}")).collect();
    let body = fields.join("&");
    let post = |origin: &str| {
        let length = body.len();
        status(
            &server,
            &format!(
                "POST /answer HTTP/1.1\r\n{}{origin}Content-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {length}\r\n\r\n{body}",
                browser.lines()
            ),
        )
    };
    for origin in [
        String::new(),
        "Origin: null\r\n".to_owned(),
        "Origin: http://evil.example\r\n".to_owned(),
        format!("Origin: https://127.0.0.1:{port}\r\n"),
        format!("Origin: http://127.0.0.1:{}\r\n", port ^ 1),
        format!("Origin: http://127.0.0.1:{port}.evil.example\r\n"),
        format!("Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: cross-site\r\n"),
        format!(
            "Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\n"
        ),
    ] {
        assert_eq!(post(&origin), 403, "{origin}");
    }
    assert_eq!(browser.comparison("ann").unwrap().what(), comparison.what(), "nothing was written");
    let get = |more: &str| status(&server, &format!("GET /items HTTP/1.1\r\n{}{more}\r\n", browser.lines()));
    // A page on another port cannot embed anything, though the browser would send it the cookie.
    assert_eq!(get("Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n"), 403);
    assert_eq!(get("Origin: http://evil.example\r\n"), 403);
    assert_eq!(get("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"), 200);
    // Programs have no origin, pages of other sites have one.
    let key = format!("Authorization: Bearer {}\r\n", server.token);
    let api = |more: &str| {
        status(
            &server,
            &format!(
                "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{key}{more}Connection: close\r\n\r\n"
            ),
        )
    };
    assert_eq!((api(""), api("Origin: http://evil.example\r\n")), (200, 403));
    assert_eq!(post(&format!("Origin: http://127.0.0.1:{port}\r\n")), 303);
}

#[test]
fn every_answer_keeps_the_page_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 2);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let image = browser.comparison("ann").into_iter().chain(browser.comparison("bob"));
    let image = image.flat_map(|comparison| comparison.sides).find(|side| side.starts_with("/image/"));
    let refused = send(
        server.port,
        format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", server.port).as_bytes(),
    );
    let paths = PATHS.iter().map(|path| browser.get(path)).chain(image.map(|image| browser.get(&image)));
    for reply in paths.chain(refused) {
        let policy = reply.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(reply.header("x-frame-options"), "DENY");
        assert_eq!(reply.header("referrer-policy"), "same-origin");
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
    }
}

#[test]
fn no_path_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 2);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    for path in [
        "/image/..%2Fstore.sqlite",
        "/image/%2Fetc%2Fpasswd",
        "/image/store.sqlite",
        "/image/../../etc/passwd",
        "/items/..%2F1",
        "/%2e%2e/etc/passwd",
        "/image/' OR 1=1 --",
        "/image/%27%20OR%201=1%20--",
    ] {
        let status = send(server.port, format!("GET {path} HTTP/1.1\r\n{}\r\n", browser.lines()).as_bytes());
        let status = status.map_or(400, |reply| reply.status);
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
}
