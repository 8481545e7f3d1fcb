use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::imds::testing::{TestClock, document};

mod bench;

const PUT: &str = "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";

/// A service by a clock that stands, and the clock.
fn service(document: &Document) -> (Arc<Service>, TestClock) {
    let clock = TestClock::default();
    (Service::with_clock(document, Box::new(clock.clone())).unwrap(), clock)
}

fn with_options(options: Options) -> Document {
    Document { options, ..document() }
}

fn required() -> Document {
    with_options(Options { tokens_required: true, hop_limit: 2, ..Options::default() })
}

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Answers to requests that were no HEAD.
fn answers(bytes: &[u8]) -> Vec<Answer> {
    let mut text = std::str::from_utf8(bytes).unwrap();
    let mut answers = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let len = head.split("Content-Length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        answers.push(Answer { status, head: head.into(), body: rest[..len].into() });
        text = &rest[len..];
    }
    assert_eq!(text, "");
    answers
}

/// Sends bytes on a connection of their own.
fn send(service: &Service, bytes: impl AsRef<[u8]>) -> (Vec<Answer>, Next) {
    let mut out = Vec::new();
    let next = service.connect().receive(bytes.as_ref(), &mut out);
    (answers(&out), next)
}

/// The one answer to one request.
fn ask(service: &Service, request: &str) -> Answer {
    let (mut answers, _) = send(service, request);
    assert_eq!(answers.len(), 1, "{request}");
    answers.remove(0)
}

fn get(service: &Service, path: &str, token: Option<&str>) -> Answer {
    let token = token.map(|token| format!("X-aws-ec2-metadata-token: {token}\r\n")).unwrap_or_default();
    ask(service, &format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{token}\r\n"))
}

fn token(service: &Service) -> String {
    let answer = ask(service, PUT);
    assert_eq!(answer.status, 200);
    answer.body
}

#[test]
fn answers_are_those_of_ec2() {
    let (service, _) = service(&document());
    let answer = get(&service, "/latest/meta-data/instance-id", None);
    assert_eq!((answer.status, answer.body.as_str()), (200, "i-0123456789abcdef0"));
    for line in [
        "Content-Type: text/plain",
        "Accept-Ranges: none",
        "Last-Modified: Mon, 24 Nov 2025 16:00:00 GMT",
        "Server: EC2ws",
        "Connection: keep-alive",
    ] {
        assert!(answer.head.lines().any(|other| other == line), "{line} in {}", answer.head);
    }
    assert!(get(&service, "/latest/user-data", None).head.contains("Content-Type: application/octet-stream\r\n"));
    let missing = get(&service, "/latest/meta-data/none", None);
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("<title>404 - Not Found</title>"), "{}", missing.body);
}

#[test]
fn tokens_are_given_to_those_who_ask_right() {
    let (service, _) = service(&document());
    let path = "/latest/api/token";
    let life = "X-aws-ec2-metadata-token-ttl-seconds: ";
    for (method, path, fields, status) in [
        ("PUT", path, format!("{life}1\r\n"), 200),
        ("PUT", path, format!("{life}21600\r\n"), 200),
        ("PUT", "//latest/api//token?x", format!("{life}60\r\n"), 200),
        ("PUT", path, format!("{life}60\r\nContent-Length: 0\r\n"), 200),
        ("PUT", path, format!("{life}0\r\n"), 400),
        ("PUT", path, format!("{life}21601\r\n"), 400),
        ("PUT", path, format!("{life}sixty\r\n"), 400),
        ("PUT", path, String::new(), 400),
        ("PUT", path, format!("{life}60\r\nX-Forwarded-For: 10.0.0.1\r\n"), 403),
        ("PUT", path, "x-forwarded-for:\r\n".into(), 403),
        ("GET", path, String::new(), 405),
        ("HEAD", "/latest/api/token", String::new(), 405),
        ("POST", path, format!("{life}60\r\n"), 405),
        ("PUT", "/latest/api/token/", format!("{life}60\r\n"), 405),
        ("PUT", "/latest/meta-data/", format!("{life}60\r\n"), 405),
        ("POST", "/latest/meta-data/", String::new(), 405),
        ("DELETE", "/", String::new(), 405),
        ("GET", "/latest/api/", String::new(), 404),
    ] {
        let mut out = Vec::new();
        service.connect().receive(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n").as_bytes(), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path} {fields}: {text}");
    }
    let answer = ask(&service, PUT);
    assert!(answer.head.contains("\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\n"), "{}", answer.head);
    assert!(answer.head.contains("\r\nContent-Type: text/plain\r\n"), "{}", answer.head);
    assert!(ask(&service, "GET /latest/api/token HTTP/1.1\r\n\r\n").head.contains("\r\nAllow: PUT\r\n"));
}

#[test]
fn tokens_let_in() {
    let (here, clock) = service(&required());
    let (there, _) = service(&required());
    let (optional, optional_clock) = service(&document());
    let path = "/latest/meta-data/ami-id";
    let good = token(&here);
    assert_eq!(get(&here, path, None).status, 401);
    assert_eq!(get(&here, "/none", None).status, 401, "what is there is not told");
    assert_eq!(get(&here, path, Some("")).status, 401);
    assert_eq!(get(&here, path, Some("bad")).status, 401);
    assert_eq!(get(&there, path, Some(&good)).status, 401, "of another instance");
    let answer = get(&here, path, Some(&good));
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\n"), "{}", answer.head);
    clock.advance(59);
    assert_eq!(get(&here, path, Some(&good)).status, 200);
    clock.advance(1);
    assert_eq!(get(&here, path, Some(&good)).status, 401, "at its end");

    // Where none is needed, one that is given has to be good all the same.
    let good = token(&optional);
    assert_eq!(get(&optional, path, None).status, 200);
    assert_eq!(get(&optional, path, Some("bad")).status, 401);
    assert_eq!(get(&optional, path, Some(&good)).status, 200);
    optional_clock.advance(60);
    assert_eq!(get(&optional, path, Some(&good)).status, 401);
}

#[test]
fn only_answers_with_tokens_have_a_hop_limit() {
    let (service, _) = service(&required());
    assert_eq!(send(&service, PUT).1, Next { close: false, hop_limit: Some(2) });
    assert_eq!(send(&service, "GET / HTTP/1.1\r\n\r\n").1, Next { close: false, hop_limit: None });
    assert_eq!(send(&service, "PUT /latest/api/token HTTP/1.1\r\n\r\n").1.hop_limit, None);
    assert_eq!(send(&service, format!("GET / HTTP/1.1\r\n\r\n{PUT}GET / HTTP/1.1\r\n\r\n")).1.hop_limit, Some(2));
    for (said, is) in [(0, 1), (64, 64), (200, 64)] {
        service.reconfigure(&with_options(Options { hop_limit: said, ..Options::default() }));
        assert_eq!(send(&service, PUT).1.hop_limit, Some(is));
    }
}

#[test]
fn a_service_that_is_switched_off_forbids_everything() {
    let (service, _) = service(&with_options(Options { endpoint: false, ..Options::default() }));
    for request in [PUT, "GET / HTTP/1.1\r\n\r\n", "POST /x HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n"] {
        let (answers, next) = send(&service, request);
        assert_eq!((answers.len(), answers[0].status, next.close), (1, 403, true), "{request}");
    }
    assert_eq!(service.counters(), Counters { requests: 4, errors: 4, tokens: 0 });
}

#[test]
fn changes_are_told_on_connections_that_are_there_already() {
    let (service, clock) = service(&document());
    let mut connection = service.connect();
    let mut get = |path: &str, token: &str| {
        let mut out = Vec::new();
        let request = format!("GET {path} HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n");
        connection.receive(request.as_bytes(), &mut out);
        answers(&out).remove(0)
    };
    let token = token(&service);
    assert_eq!(get("/latest/meta-data/tags/instance/Name", &token).body, "one");
    clock.advance(30);
    let mut changed = required();
    changed.tags = None;
    changed.user_data = Some("bmV3".into());
    service.reconfigure(&changed);
    assert_eq!(get("/latest/meta-data/tags/instance/Name", &token).status, 404);
    let answer = get("/latest/user-data", &token);
    assert_eq!(answer.body, "new");
    assert!(answer.head.contains("\r\nLast-Modified: Mon, 24 Nov 2025 16:00:30 GMT\r\n"), "{}", answer.head);
    assert_eq!(get("/latest/user-data", "bad").status, 401);
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let (service, _) = service(&document());
    let request = |path: &str| format!("GET /latest/meta-data/{path} HTTP/1.1\r\n\r\n");
    let (answers, next) = send(&service, request("ami-id") + &request("none") + &request("instance-id"));
    let told: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!((told, next.close), (vec![200, 404, 200], false));
    assert_eq!(answers[2].body, "i-0123456789abcdef0");
}

#[test]
fn a_connection_ends_when_it_is_to() {
    let (service, _) = service(&document());
    for (text, count) in [
        ("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n", 1),
        ("nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n", 2),
    ] {
        let mut connection = service.connect();
        let mut out = Vec::new();
        assert!(connection.receive(text.as_bytes(), &mut out).close, "{text:?}");
        let all = answers(&out);
        assert_eq!(all.len(), count, "{text:?}");
        assert!(all[count - 1].head.contains("\r\nConnection: close"), "{text:?}");
        out.clear();
        assert!(connection.receive(b"GET / HTTP/1.1\r\n\r\n", &mut out).close);
        assert_eq!(out, b"", "nothing is answered after the end");
    }
}

#[test]
fn head_is_answered_without_content() {
    let (service, _) = service(&document());
    let mut out = Vec::new();
    service.connect().receive(b"HEAD /latest/meta-data/instance-id HTTP/1.1\r\n\r\n", &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(text.contains("\r\nContent-Length: 19\r\n"), "{text}");
}

#[test]
fn who_asks_without_reading_is_not_answered_without_end() {
    let (service, _) = service(&document());
    let flood = "GET /latest/meta-data/ HTTP/1.1\r\n\r\n".repeat(10_000);
    let mut out = Vec::new();
    let next = service.connect().receive(flood.as_bytes(), &mut out);
    assert!(next.close);
    assert!(out.len() < ANSWERS_MAX + 4096, "{} bytes", out.len());
    assert!(answers(&out).last().unwrap().head.contains("\r\nConnection: close"));
}

#[test]
fn a_flood_of_tokens_leaves_nothing_behind() {
    let (service, _) = service(&required());
    let first = token(&service);
    let mut connection = service.connect();
    for _ in 0..10_000 {
        let mut out = Vec::new();
        connection.receive(PUT.as_bytes(), &mut out);
    }
    assert_eq!(get(&service, "/latest/user-data", Some(&first)).status, 200);
    assert_eq!(service.counters(), Counters { requests: 10_002, errors: 0, tokens: 10_001 });
}

/// Asks for what is listed below a path, and what is below that.
fn crawl(service: &Service, path: &str, token: &str, asked: &mut Vec<String>) {
    let mut ask = |path: String| {
        let answer = get(service, &path, Some(token));
        assert_eq!(answer.status, 200, "{path}");
        asked.push(path);
        answer.body
    };
    let listing = ask(path.to_owned());
    let mut below = Vec::new();
    for line in listing.lines() {
        match line.split_once('=') {
            _ if line.ends_with('/') => below.push(line),
            Some((number, _)) => drop(ask(format!("{path}{number}/openssh-key"))),
            None => drop(ask(format!("{path}{line}"))),
        }
    }
    for line in below {
        crawl(service, &format!("{path}{line}"), token, asked);
    }
}

#[test]
fn cloud_init_finds_all_it_asks_for() {
    let mut document = required();
    document.public_keys.truncate(1);
    document.tags = None;
    let (service, _) = service(&document);
    let answer = ask(
        &service,
        "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\nUser-Agent: Cloud-Init/22.4.2\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
         X-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(answer.status, 200);
    let token = answer.body;
    let mut asked = Vec::new();
    for path in ["meta-data/instance-id", "user-data"] {
        let path = format!("/2021-03-23/{path}");
        assert_eq!(get(&service, &path, Some(&token)).status, 200, "{path}");
        asked.push(path);
    }
    crawl(&service, "/2021-03-23/meta-data/", &token, &mut asked);
    let listing = get(&service, "/2021-03-23/dynamic/instance-identity", Some(&token));
    for leaf in listing.body.lines() {
        let path = format!("/2021-03-23/dynamic/instance-identity/{leaf}");
        assert_eq!(get(&service, &path, Some(&token)).status, 200, "{path}");
        asked.push(path);
    }
    let vpc = "/2021-03-23/meta-data/network/interfaces/macs/06:12:34:56:78:9a/vpc-id";
    assert!(asked.iter().any(|path| path == vpc), "without it, it takes this for EC2 Classic");
    assert!(asked.len() >= 55, "{} requests", asked.len());
    assert_eq!(service.counters().errors, 0);
}

#[test]
fn connections_and_changes_may_come_at_once() {
    let service = Service::new(&document()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let good = token(&service);
                    assert_eq!(get(&service, "/latest/meta-data/ami-id", Some(&good)).status, 200);
                }
            });
        }
        for _ in 0..100 {
            service.reconfigure(&required());
            service.reconfigure(&document());
        }
    });
    assert_eq!(service.counters(), Counters { requests: 1600, errors: 0, tokens: 800 });
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        order in proptest::collection::vec(0_usize..5, 1..8),
        size in 1_usize..50,
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let requests = [
            "GET /latest/meta-data/ HTTP/1.1\r\n\r\n",
            "HEAD /latest/user-data HTTP/1.1\r\n\r\n",
            "PUT /latest/api/token HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "GET /latest/meta-data/tags/instance/%4eame HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "GET /none HTTP/1.1\r\nX-aws-ec2-metadata-token: no\r\n\r\n",
        ];
        let mut stream: Vec<u8> = order.iter().flat_map(|at| requests[*at].bytes()).collect();
        if let Some((at, byte)) = damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let (service, _) = service(&document());
        let run = |size: usize| {
            let mut connection = service.connect();
            let mut out = Vec::new();
            let closed = stream.chunks(size).fold(false, |_, piece| connection.receive(piece, &mut out).close);
            (out, closed)
        };
        prop_assert_eq!(run(size), run(stream.len()));
    }

    #[test]
    fn anything_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000), size in 1_usize..1000) {
        let (service, _) = service(&document());
        let mut connection = service.connect();
        for piece in bytes.chunks(size) {
            let mut out = Vec::new();
            if connection.receive(piece, &mut out).close {
                break;
            }
        }
    }
}

#[test]
fn the_hosts_clock_goes_on() {
    let clock = HostClock::start();
    let before = clock.elapsed();
    assert!(clock.elapsed() >= before);
    assert!(clock.wall() > SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
}
