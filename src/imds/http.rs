//! As much of HTTP/1.0 and 1.1 (RFC 9112) as the service needs: requests out of bytes that come in any pieces.

mod response;
mod target;
#[cfg(test)]
mod tests;

pub(super) use response::{Response, Status};
pub(super) use target::Target;

/// The longest head of a request, in bytes: its first line, its fields and the empty line.
pub(super) const HEAD_MAX: usize = 8 << 10;
/// The longest body of a request, in bytes. None of them is looked at.
pub(super) const BODY_MAX: usize = 1 << 10;
/// The most fields of a head.
const FIELDS_MAX: usize = 64;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const LIFE: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Asks.
    Get,
    /// Asks, and does not want to hear it.
    Head,
    /// Wants a token.
    Put,
    /// What nothing here understands.
    Other,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub method: Method,
    pub target: Target,
    /// Whether others may follow on its connection.
    pub keep_alive: bool,
    /// The session token that it comes with.
    pub token: Option<Vec<u8>>,
    /// How long the token that it wants is to be good for, as it says.
    pub life: Option<Vec<u8>>,
    /// Whether it says that somebody has passed it on.
    pub forwarded: bool,
}

/// Takes requests out of a stream. It keeps no more than one head that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    /// Where in `bytes` the next request begins.
    at: usize,
    /// How many bytes of that were looked through for the end of its head.
    searched: usize,
    /// How many bytes of a body are still to be passed over.
    body: usize,
}

impl Reader {
    /// More bytes have come. All requests are to be taken before.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next request; `None` where its bytes have not come yet. After an error nothing more can be taken.
    ///
    /// # Errors
    /// The status to answer with.
    pub fn next(&mut self) -> Result<Option<Request>, Status> {
        if !self.skip() {
            // A connection that waits holds no memory.
            (self.bytes, self.at) = (Vec::new(), 0);
            return Ok(None);
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(len) = head_len(rest, self.searched) else {
            self.searched = rest.len();
            return if rest.len() > HEAD_MAX { Err(Status::HeadTooLarge) } else { Ok(None) };
        };
        let head = rest.get(..len).filter(|head| head.len() <= HEAD_MAX).ok_or(Status::HeadTooLarge)?;
        let (request, body) = parse(head)?;
        self.searched = 0;
        self.at += len;
        self.body = body;
        Ok(Some(request))
    }

    /// How many bytes are kept.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Passes over what is left of a body, and over empty lines before a head (RFC 9112, section 2.2). Whether there is more.
    fn skip(&mut self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let body = self.body.min(rest.len());
        self.body -= body;
        self.at += body;
        if self.searched == 0 && self.body == 0 {
            let lines = rest.iter().skip(body).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.at += lines;
        }
        self.at < self.bytes.len()
    }
}

/// Bytes of a head with the empty line at its end; `searched` bytes have been looked through before.
fn head_len(bytes: &[u8], searched: usize) -> Option<usize> {
    // An end may have begun there: at most three bytes of it.
    let from = searched.saturating_sub(3);
    let rest = bytes.get(from..)?;
    memchr::memchr_iter(b'\n', rest).find_map(|at| {
        let len = match rest.get(at + 1..)? {
            [b'\n', ..] => 2,
            [b'\r', b'\n', ..] => 3,
            _ => return None,
        };
        Some(from + at + len)
    })
}

/// Reads a whole head: the request, and how many bytes of a body follow.
fn parse(head: &[u8]) -> Result<(Request, usize), Status> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Ok(_) | Err(_) => return Err(Status::BadRequest),
    }
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("PUT") => Method::Put,
        _ => Method::Other,
    };
    let target = Target::parse(parsed.path.unwrap_or_default()).ok_or(Status::BadRequest)?;
    let mut request = Request {
        method,
        target,
        // HTTP/1.1 goes on unless told otherwise, HTTP/1.0 the other way round (RFC 9112, section 9.3).
        keep_alive: parsed.version == Some(1),
        token: None,
        life: None,
        forwarded: false,
    };
    let mut body = None;
    for field in parsed.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is(TOKEN) {
            once(&mut request.token, field.value.to_vec())?;
        } else if is(LIFE) {
            once(&mut request.life, field.value.to_vec())?;
        } else if is("x-forwarded-for") {
            request.forwarded = true;
        } else if is("content-length") {
            let len = body_len(field.value)?;
            if body.replace(len).is_some_and(|before| before != len) {
                return Err(Status::BadRequest);
            }
        } else if is("transfer-encoding") {
            return Err(Status::LengthRequired);
        } else if is("expect") {
            return Err(Status::ExpectationFailed);
        } else if is("connection") {
            for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    request.keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    request.keep_alive = true;
                }
            }
        }
    }
    Ok((request, body.unwrap_or(0)))
}

/// A field that may be there once.
fn once(field: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<(), Status> {
    if field.replace(value).is_some() { Err(Status::BadRequest) } else { Ok(()) }
}

fn body_len(text: &[u8]) -> Result<usize, Status> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Status::BadRequest);
    }
    // What has too many digits for a number is too large too.
    let len = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    len.filter(|len| *len <= BODY_MAX).ok_or(Status::ContentTooLarge)
}
