//! HTTP/1.1 around the [service](super::service): connections, limits, TLS, a log line for each request, an orderly end.

mod listen;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use listen::{Listening, listen};
pub use tls::Tls;

use super::service::{HttpAnswer, HttpRequest, Service, Told};

/// Most connections at once; more wait.
const MAX_CONNECTIONS: usize = 1024;
/// Longest body, in bytes: a block of the EBS direct API and room for its frame.
const MAX_BODY: usize = 1 << 20;
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How long a client has to send a request's head, or its body, and to shake hands.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests under way have when the server is to end.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Takes a line for each request.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Serves until `end` becomes true.
pub async fn serve(
    service: Arc<Service>,
    listening: Listening,
    tls: Option<Tls>,
    log: Log,
    mut end: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
            () = ending(&mut end) => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            () = ending(&mut end) => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, mostly: some will be free again.
                log(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, tls, log, end) = (service.clone(), tls.clone(), log.clone(), end.clone());
        connections.spawn(async move {
            let _permit = permit;
            connection(service, stream, tls, log, end).await;
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listening);
    let _ = tokio::time::timeout(LAST_REQUESTS, async { while connections.join_next().await.is_some() {} }).await;
}

/// Waits until the server is to end.
async fn ending(end: &mut watch::Receiver<bool>) {
    drop(end.wait_for(|end| *end).await);
}

async fn connection(service: Arc<Service>, stream: TcpStream, tls: Option<Tls>, log: Log, end: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => requests(service, stream, log, end).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                requests(service, stream, log, end).await;
            }
        }
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    service: Arc<Service>,
    stream: S,
    log: Log,
    mut end: watch::Receiver<bool>,
) {
    let answer = service_fn(move |request| {
        let (service, log) = (service.clone(), log.clone());
        async move { Ok::<_, Infallible>(answer(service, request, &log).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ending(&mut end) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(service: Arc<Service>, request: Request<Incoming>, log: &Log) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return response(HttpAnswer::new(413, "text/plain", format!("a body may have {MAX_BODY} bytes\n")));
        }
        Ok(Err(_)) => return response(HttpAnswer::new(400, "text/plain", "the body is cut off\n")),
        Err(_) => return response(HttpAnswer::new(408, "text/plain", "the body did not come in time\n")),
    };
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let mut headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    // HTTP/1.1 with an absolute address, as proxies send it.
    if let (Some(authority), false) = (head.uri.authority(), head.headers.contains_key("host")) {
        headers.push(("host".into(), authority.to_string()));
    }
    let request = HttpRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers,
        body,
    };
    let answered = tokio::task::spawn_blocking(move || service.answer(&request)).await;
    let (answer, told) = answered.unwrap_or_else(|_| {
        (HttpAnswer::new(500, "text/plain", "it panicked\n"), Told { action: "-".into(), ..Told::default() })
    });
    if !told.action.is_empty() {
        log(&line(&answer, &told, began.elapsed()));
    }
    response(answer)
}

/// A line of the log.
fn line(answer: &HttpAnswer, told: &Told, took: Duration) -> String {
    let (account, region) =
        told.caller.as_ref().map_or(("-", "-"), |caller| (caller.scope.account.as_str(), caller.scope.region.as_str()));
    let error = told.error.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
    let (action, id, status) = (&told.action, &told.request_id, answer.status);
    format!("{account} {region} {action} {status}{error} {:.1} ms {id}", took.as_secs_f64() * 1000.0)
}

fn response(answer: HttpAnswer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
