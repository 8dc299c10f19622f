//! As much of a browser as a form needs: HTTP on a socket, a cookie, and pages read by a tokenizer of HTML.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};

use crate::running::Running;

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request as it is and reads the whole answer; none if the connection breaks.
pub(crate) fn send(port: u16, request: &[u8]) -> Option<Reply> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    socket.write_all(request).ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header =
        |line: &str| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let body = &answer[end + 4..];
    let is_chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let bytes = if is_chunked { unchunked(body)? } else { body.to_vec() };
    if let Some(length) = headers.get("content-length") {
        (length.parse() == Ok(bytes.len())).then_some(())?;
    }
    Some(Reply { status, headers, bytes })
}

fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + length)?);
        body = body.get(end + 4 + length..)?;
    }
}

/// A browser that has opened the printed address.
pub(crate) struct Browser {
    port: u16,
    cookie: String,
}

impl Browser {
    pub(crate) fn open(server: &Running) -> Self {
        Self::open_url(server.port, &server.url)
    }

    pub(crate) fn open_url(port: u16, url: &str) -> Self {
        let path = url.strip_prefix(&format!("http://127.0.0.1:{port}")).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        let reply = send(port, request.as_bytes()).unwrap();
        assert_eq!((reply.status, reply.header("location")), (303, "/"));
        let cookie = reply.header("set-cookie");
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
        Self { port, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    /// The head lines that every request of it has.
    pub(crate) fn lines(&self) -> String {
        let Self { port, cookie } = self;
        format!("Host: 127.0.0.1:{port}\r\nCookie: theme=dark; {cookie}\r\nConnection: close\r\n")
    }

    /// None if the server is gone.
    pub(crate) fn try_get(&self, path: &str) -> Option<Reply> {
        send(self.port, format!("GET {path} HTTP/1.1\r\n{}\r\n", self.lines()).as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.try_get(path).unwrap()
    }

    pub(crate) fn post(&self, path: &str, fields: &[(String, String)]) -> Option<Reply> {
        let body: Vec<String> =
            fields.iter().map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect();
        let body = body.join("&");
        let head = format!(
            "POST {path} HTTP/1.1\r\n{}Origin: http://127.0.0.1:{}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.lines(),
            self.port,
            body.len()
        );
        send(self.port, head.as_bytes())
    }

    /// The comparison that a person is shown next; none if that was all.
    pub(crate) fn comparison(&self, rater: &str) -> Option<Comparison> {
        let page = self.get(&format!("/compare?rater={rater}"));
        assert_eq!(page.status, 200, "{}", page.text());
        Comparison::read(&page.text())
    }

    /// Gives an answer, follows where it leads, and says what is shown then.
    pub(crate) fn answer(&self, comparison: &Comparison, answer: &str) -> Reply {
        self.post("/answer", &comparison.fields(answer)).unwrap()
    }
}

/// Percent-encoding of everything but letters and digits.
pub(crate) fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What a page of a comparison shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    hidden: Vec<(String, String)>,
    /// Addresses of images or texts, left and right.
    pub(crate) sides: Vec<String>,
    /// Number of the judgment that undo would withdraw.
    pub(crate) last: Option<String>,
}

impl Comparison {
    pub(crate) fn read(page: &str) -> Option<Self> {
        let (mut form, mut hidden, mut sides, mut last) = (String::new(), Vec::new(), Vec::new(), None);
        let mut is_text = false;
        for token in tokens(page) {
            match token {
                Seen::Open(name, attributes) => {
                    let value = |name: &str| attributes.get(name).cloned().unwrap_or_default();
                    match name.as_str() {
                        "form" => form = value("action"),
                        "input" if form == "/answer" => hidden.push((value("name"), value("value"))),
                        "input" if form == "/undo" && value("name") == "judgment" => {
                            last = Some(value("value"))
                        }
                        "img" if form == "/answer" => sides.push(value("src")),
                        "blockquote" if form == "/answer" => is_text = true,
                        _ => {}
                    }
                }
                Seen::Text(text) if is_text => {
                    sides.push(text);
                    is_text = false;
                }
                _ => {}
            }
        }
        (!hidden.is_empty()).then_some(Self { hidden, sides, last })
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        &self.hidden.iter().find(|(other, _)| other == name).unwrap().1
    }

    pub(crate) fn fields(&self, answer: &str) -> Vec<(String, String)> {
        let mut fields = self.hidden.clone();
        fields.push(("answer".to_owned(), answer.to_owned()));
        fields
    }

    /// Everything but the time at which the page was made.
    pub(crate) fn what(&self) -> (String, String, Vec<String>) {
        (self.value("item").to_owned(), self.value("draw").to_owned(), self.sides.clone())
    }
}

/// A piece of a page as a browser's tokenizer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// An element with its attributes.
    Open(String, BTreeMap<String, String>),
    Close(String),
    Text(String),
    /// A comment, a doctype, or an error of the page's writer.
    Other(String),
}

pub(crate) fn tokens(page: &str) -> Vec<Seen> {
    let mut emitter = DefaultEmitter::default();
    // What is inside of <title> and <textarea> is text.
    emitter.naively_switch_states(true);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let seen = |token| match token {
        Token::StartTag(tag) => {
            let attributes = tag.attributes.iter().map(|(name, value)| (text(name), text(value))).collect();
            Seen::Open(text(&tag.name), attributes)
        }
        Token::EndTag(tag) => Seen::Close(text(&tag.name)),
        Token::String(value) => Seen::Text(text(&value)),
        other => Seen::Other(format!("{other:?}")),
    };
    Tokenizer::new_with_emitter(page, emitter).map(|Ok(token)| seen(token)).collect()
}
