use proptest::prelude::*;

use super::*;

/// What comes out of bytes that come in pieces: requests, and the error that ended them.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Request>, Option<Status>) {
    let mut reader = Reader::default();
    let mut requests = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(status) => return (requests, Some(status)),
            }
        }
        assert!(reader.kept() <= HEAD_MAX, "{} bytes are kept", reader.kept());
    }
    (requests, None)
}

fn one(text: &str) -> Result<Request, Status> {
    match read([text.as_bytes()]) {
        (mut requests, None) if requests.len() == 1 => Ok(requests.remove(0)),
        (_, Some(status)) => Err(status),
        (requests, None) => panic!("{text:?} is {} requests", requests.len()),
    }
}

#[test]
fn requests_are_read() {
    let request = one("GET /latest/ HTTP/1.1\r\nHost: anything\r\nX-aws-EC2-metadata-Token: abc\r\n\r\n").unwrap();
    assert_eq!((request.method, request.target.segments.concat()), (Method::Get, "latest".into()));
    assert_eq!((request.token.as_deref(), request.keep_alive), (Some(&b"abc"[..]), true));
    let request = one(
        "PUT /latest/api/token HTTP/1.1\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    );
    let request = request.unwrap();
    assert!(request.target.is(&["latest", "api", "token"]));
    assert_eq!((request.life.as_deref(), request.forwarded), (Some(&b"60"[..]), true));
    assert_eq!(one("HEAD / HTTP/1.0\n\n").unwrap().method, Method::Head);
    assert_eq!(one("DELETE / HTTP/1.1\r\n\r\n").unwrap().method, Method::Other);
    assert_eq!(one("\r\n\r\nGET / HTTP/1.1\r\n\r\n").unwrap().method, Method::Get);
}

#[test]
fn connections_go_on_as_was_agreed() {
    for (version, field, keep_alive) in [
        ("1.1", "", true),
        ("1.0", "", false),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: foo, Close\r\n", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.1", "Connection: foo\r\n", true),
    ] {
        let request = one(&format!("GET / HTTP/{version}\r\n{field}\r\n")).unwrap();
        assert_eq!(request.keep_alive, keep_alive, "{version} {field}");
    }
}

#[test]
fn what_is_no_request_says_why() {
    for (text, status) in [
        ("GET\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/2.0\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nno field\r\n\r\n", Status::BadRequest),
        ("GET / HTTP/1.1\r\nX: \x01\r\n\r\n", Status::BadRequest),
        ("GET /../x HTTP/1.1\r\n\r\n", Status::BadRequest),
        ("GET x HTTP/1.1\r\n\r\n", Status::BadRequest),
        ("\x16\x03\x01\x02\n\n", Status::BadRequest),
        ("PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n", Status::BadRequest),
        ("PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Status::BadRequest),
        ("PUT / HTTP/1.1\r\nContent-Length: \r\n\r\n", Status::BadRequest),
        ("PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Status::BadRequest),
        ("PUT / HTTP/1.1\r\nContent-Length: 1025\r\n\r\n", Status::ContentTooLarge),
        ("PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", Status::ContentTooLarge),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Status::LengthRequired),
        ("PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", Status::ExpectationFailed),
        ("GET / HTTP/1.1\r\nX-aws-ec2-metadata-token: a\r\nX-aws-ec2-metadata-token: b\r\n\r\n", Status::BadRequest),
    ] {
        assert_eq!(one(text), Err(status), "{text:?}");
    }
}

#[test]
fn heads_have_an_end_at_8_kib() {
    let head = |len: usize| {
        let rest = "GET / HTTP/1.1\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(len - rest))
    };
    assert!(one(&head(HEAD_MAX)).is_ok());
    assert_eq!(one(&head(HEAD_MAX + 1)), Err(Status::HeadTooLarge));
    assert_eq!(read([&[b'x'; HEAD_MAX][..]]), (Vec::new(), None));
    assert_eq!(read([&[b'x'; HEAD_MAX + 1][..]]), (Vec::new(), Some(Status::HeadTooLarge)));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
    assert_eq!(one(&many), Err(Status::HeadTooLarge));
}

#[test]
fn bodies_are_passed_over() {
    let text = "PUT /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /GET /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\n\r\n\
                GET /3 HTTP/1.1\r\n\r\n";
    let (requests, error) = read([text.as_bytes()]);
    let paths: Vec<_> = requests.iter().map(|request| request.target.segments.concat()).collect();
    assert_eq!((paths, error), (vec!["1".into(), "2".into(), "3".into()], None));
}

#[test]
fn empty_lines_are_not_kept() {
    let mut reader = Reader::default();
    for _ in 0..1000 {
        reader.push(&[b'\n'; 1000]);
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.kept(), 0);
    }
}

/// Requests, most of them good.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let request = prop_oneof![
        Just("GET /latest/meta-data/ami-id HTTP/1.1\r\n\r\n"),
        Just("\r\nHEAD /a//b/?x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        Just(
            "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 3\r\n\r\n\n\n\n"
        ),
        Just("POST /%20 HTTP/1.1\nHost: x\n\nGET / HTTP/1.1\nA: b\r\n\n"),
        Just("GET http://x/y HTTP/1.1\r\nX-aws-ec2-metadata-token: t\r\nX-Forwarded-For: z\r\n\r\n"),
        Just("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ];
    proptest::collection::vec(request, 0..6).prop_map(|requests| requests.concat().into_bytes())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(stream in stream(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        let whole = read([&stream[..]]);
        prop_assert_eq!(&read(pieces), &whole);
        prop_assert_eq!(&read(stream.chunks(1)), &whole);
    }

    #[test]
    fn damaged_requests_are_answered_or_refused(
        stream in stream(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        size in 1_usize..64,
    ) {
        let mut stream = stream;
        for (at, byte) in damage {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        prop_assert_eq!(read(stream.chunks(size)), read([&stream[..]]));
    }

    #[test]
    fn anything_is_answered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4000), size in 1_usize..2000) {
        read(bytes.chunks(size));
    }
}
