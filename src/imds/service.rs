//! The service: requests in, answers out.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use super::clock::{Clock, HostClock};
use super::document::{Document, Options};
use super::http::{Method, Reader, Request, Response, Status};
use super::token::{Life, Tokens};
use super::tree::{TEXT, Tree};
use crate::net::{Conversation, Next, StreamService};

#[cfg(test)]
mod tests;

/// Bytes after which a connection that asks on before it has read its answers is closed.
const ANSWERS_MAX: usize = 64 << 10;
/// Where tokens are asked for.
const TOKEN_PATH: [&str; 3] = ["latest", "api", "token"];

/// What the service has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were answered, those among them that were none.
    pub requests: u64,
    /// Those that were answered with an error.
    pub errors: u64,
    /// Tokens that were given.
    pub tokens: u64,
}

/// The instance metadata service of one instance.
///
/// It may be asked by any number of connections at once, and be told of changes meanwhile.
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Box<dyn Clock>,
    tokens: Tokens,
    told: RwLock<Arc<Told>>,
    requests: AtomicU64,
    errors: AtomicU64,
    given: AtomicU64,
}

/// What is told at present.
struct Told {
    tree: Tree,
    options: Options,
    since: SystemTime,
}

impl Told {
    fn new(document: &Document, since: SystemTime) -> Arc<Self> {
        Arc::new(Self { tree: Tree::new(document), options: document.options, since })
    }
}

impl Service {
    /// The service of an instance.
    ///
    /// # Errors
    /// Where the host has no random numbers for the key of its tokens.
    pub fn new(document: &Document) -> io::Result<Arc<Self>> {
        Self::with_clock(document, Box::new(HostClock::start()))
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with_clock(document: &Document, clock: Box<dyn Clock>) -> io::Result<Arc<Self>> {
        let inner = Inner {
            tokens: Tokens::new()?,
            told: RwLock::new(Told::new(document, clock.wall())),
            clock,
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            given: AtomicU64::new(0),
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Tells this from the next request on, on connections that are there already too. Tokens stay good.
    pub fn reconfigure(&self, document: &Document) {
        let told = Told::new(document, self.inner.clock.wall());
        *self.inner.told.write().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// What it has done until now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Inner { requests, errors, given, .. } = &*self.inner;
        Counters { requests: load(requests), errors: load(errors), tokens: load(given) }
    }
}

impl StreamService for Service {
    fn connect(&self) -> Box<dyn Conversation> {
        Box::new(Connection { inner: Arc::clone(&self.inner), reader: Reader::default(), closed: false })
    }
}

impl Inner {
    fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a request; whether the answer is a token.
    fn answer(&self, told: &Told, request: &Request) -> (Response, bool) {
        if !told.options.endpoint {
            return (Response::error(Status::Forbidden), false);
        }
        let answer = match (request.method, request.target.is(&TOKEN_PATH)) {
            (Method::Put, true) => return self.give_token(request).map_or_else(refused, |response| (response, true)),
            (Method::Get | Method::Head, false) => self.look_up(told, request),
            (_, true) => Err(Status::MethodNotAllowed("PUT")),
            (_, false) => Err(Status::MethodNotAllowed("GET, HEAD")),
        };
        answer.map_or_else(refused, |response| (response, false))
    }

    fn give_token(&self, request: &Request) -> Result<Response, Status> {
        if request.forwarded {
            return Err(Status::Forbidden);
        }
        let life = request.life.as_deref().and_then(Life::parse).ok_or(Status::BadRequest)?;
        let token = self.tokens.make(self.clock.elapsed(), life);
        self.given.fetch_add(1, Ordering::Relaxed);
        Ok(Response {
            status: Status::Ok,
            content: token.into_bytes(),
            media_type: TEXT,
            modified: None,
            token_life: Some(life.seconds().into()),
        })
    }

    fn look_up(&self, told: &Told, request: &Request) -> Result<Response, Status> {
        let left = match &request.token {
            Some(token) => Some(self.tokens.left(self.clock.elapsed(), token).ok_or(Status::Unauthorized)?),
            None if told.options.tokens_required => return Err(Status::Unauthorized),
            None => None,
        };
        let found = told.tree.find(&request.target.segments, request.target.slash).ok_or(Status::NotFound)?;
        Ok(Response {
            status: Status::Ok,
            content: found.content,
            media_type: found.media_type,
            modified: Some(told.since),
            token_life: left.map(|left| left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0))),
        })
    }
}

fn refused(status: Status) -> (Response, bool) {
    (Response::error(status), false)
}

struct Connection {
    inner: Arc<Inner>,
    reader: Reader,
    closed: bool,
}

impl Conversation for Connection {
    fn receive(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> Next {
        let before = answer.len();
        let mut hop_limit = None;
        if !self.closed {
            self.reader.push(bytes);
        }
        while !self.closed {
            let next = self.reader.next();
            let told = self.inner.told();
            let (response, content, keep_alive) = match next {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let (response, is_token) = self.inner.answer(&told, &request);
                    if is_token {
                        // Whatever else is in these packets, the token must not get further.
                        hop_limit = Some(told.options.hop_limit.clamp(1, 64));
                    }
                    (response, request.method != Method::Head, request.keep_alive && told.options.endpoint)
                }
                Err(status) => {
                    let status = if told.options.endpoint { status } else { Status::Forbidden };
                    (Response::error(status), true, false)
                }
            };
            self.inner.requests.fetch_add(1, Ordering::Relaxed);
            if response.status != Status::Ok {
                self.inner.errors.fetch_add(1, Ordering::Relaxed);
            }
            let full = answer.len().saturating_sub(before) > ANSWERS_MAX;
            self.closed = !keep_alive || full;
            response.write(answer, content, !self.closed, self.inner.clock.wall());
        }
        if self.closed {
            self.reader = Reader::default();
        }
        Next { close: self.closed, hop_limit }
    }
}
