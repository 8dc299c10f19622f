//! Who is let in: requests to this machine by its own name, from no other site, that know the token.
//!
//! A page of another site can make a browser send requests here. It cannot choose the header `Origin`, which must be this
//! server's, and a site whose name it has made to point here (DNS rebinding) gives itself away by `Host`. What remains are
//! other programs of this machine, and those do not know the token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::openai;
use crate::problem::Problem;
use crate::secret::Secret;

/// Scripts and styles are files of this server, and nothing is allowed to be anything else.
const POLICY: &str = "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// What every answer says. `same-origin` and not `no-referrer`, under which browsers send forms with `Origin: null`.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// What the gate compares requests with.
pub(crate) struct Gate {
    hosts: [String; 2],
    cookie: String,
    token: Secret,
    session: Secret,
}

/// Why a request is not let in.
enum Refusal {
    Host,
    Origin,
    Token,
}

impl Gate {
    /// The gate of a server on a port. Cookies are shared by all ports of a machine, so the cookie's name has the port in it.
    pub(crate) fn new(port: u16) -> Result<Self, getrandom::Error> {
        Ok(Self {
            hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")],
            cookie: format!("votive-{port}"),
            token: Secret::random()?,
            session: Secret::random()?,
        })
    }

    /// The address that lets a browser in.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/?token={}", self.hosts[0], self.token.as_str())
    }

    /// The key that lets a program in.
    pub(crate) fn token(&self) -> &str {
        self.token.as_str()
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let (headers, is_read) = (request.headers(), matches!(*request.method(), Method::GET | Method::HEAD));
        let is_here = |host: &str| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        if !only(headers, &header::HOST).is_some_and(is_here) {
            return Err(Refusal::Host);
        }
        if request.uri().authority().is_some_and(|authority| !is_here(authority.as_str())) {
            return Err(Refusal::Host);
        }
        let is_api = is_api(request.uri());
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
            if !origin.is_some_and(is_here) {
                return Err(Refusal::Origin);
            }
        } else if !is_read && !is_api {
            return Err(Refusal::Origin);
        }
        // Another port of this machine is another origin, but the same site: it would be sent the cookie.
        let is_navigation = is_read && is(headers, "sec-fetch-mode", "navigate");
        if (is(headers, "sec-fetch-site", "cross-site") || is(headers, "sec-fetch-site", "same-site"))
            && !is_navigation
        {
            return Err(Refusal::Origin);
        }
        let is_known = if is_api { self.has_key(headers) } else { self.has_cookie(headers) };
        if is_known { Ok(()) } else { Err(Refusal::Token) }
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let key = only(headers, &header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        key.is_some_and(|(scheme, key)| scheme.eq_ignore_ascii_case("bearer") && self.token.is(key.trim()))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .any(|(name, value)| name == self.cookie && self.session.is(value))
    }

    /// The cookie for the token, if a request is the one of the printed address.
    fn exchange(&self, request: &Request) -> Option<Response> {
        let query = request.uri().query().filter(|_| request.uri().path() == "/")?;
        let token = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        if !self.token.is(token) || request.method() != Method::GET {
            return None;
        }
        let (cookie, session) = (&self.cookie, self.session.as_str());
        let cookie = format!("{cookie}={session}; Path=/; HttpOnly; SameSite=Strict");
        Some(
            (StatusCode::SEE_OTHER, [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)])
                .into_response(),
        )
    }

    fn refuse(&self, refusal: &Refusal, uri: &Uri) -> Response {
        let (status, message) = match refusal {
            Refusal::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "This server is called {} or {}; through a tunnel, use the same port.",
                    self.hosts[0], self.hosts[1]
                ),
            ),
            Refusal::Origin => {
                (StatusCode::FORBIDDEN, "The request does not come from a page of this server.".to_owned())
            }
            Refusal::Token if is_api(uri) => (
                StatusCode::UNAUTHORIZED,
                "The key is not the token that `votive serve` has printed.".to_owned(),
            ),
            Refusal::Token => (
                StatusCode::FORBIDDEN,
                "Open the address that `votive serve` has printed: its token lets you in.".to_owned(),
            ),
        };
        if is_api(uri) {
            openai::refused(status, &message)
        } else {
            Problem::new(status, message).into_response()
        }
    }
}

/// Whether a request is for programs, which show a key, and not for people, whose browsers show a cookie.
fn is_api(uri: &Uri) -> bool {
    uri.path().starts_with("/v1/")
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes())
}

/// Lets a request in or refuses it, and adds to any answer what keeps it where it belongs.
pub(crate) async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match gate.check(&request) {
        Ok(()) if has_token(request.uri()) => redirect_home(),
        Ok(()) => next.run(request).await,
        Err(Refusal::Token) => {
            let uri = request.uri().clone();
            gate.exchange(&request).unwrap_or_else(|| gate.refuse(&Refusal::Token, &uri))
        }
        Err(refusal) => gate.refuse(&refusal, request.uri()),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the address is the printed one, which somebody with a cookie has opened again: it should not stay in sight.
fn has_token(uri: &Uri) -> bool {
    uri.path() == "/"
        && uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("token=")))
}

fn redirect_home() -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response()
}
