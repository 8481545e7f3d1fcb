//! From an HTTP request to its answer, whoever carries them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use uuid::Uuid;

use super::auth::{Auth, Caller, Mode};
use super::background::Background;
use super::cache::Cache;
use super::call::{self, Works};
use super::clouds::Clouds;
use super::error::ApiError;
use super::import_dirs::ImportDirs;
use super::metrics::Metrics;
use super::sigv4::Signed;
use super::wire::parameters::Fields;
use super::wire::xml::Xml;
use super::{ebs, ssm, sts};
use crate::cloud::access_key::AccessKeys;
use crate::cloud::time;

/// A request, read to its end.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// `POST`.
    pub method: String,
    /// As it was sent.
    pub path: String,
    /// As it was sent, without the question mark.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    fn signed(&self) -> Signed<'_> {
        let Self { method, path, query, headers, body } = self;
        Signed { method, path, query, headers, body }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// As 200.
    pub status: u16,
    /// As `text/xml`.
    pub content_type: &'static str,
    /// Beside the type and the length.
    pub headers: Vec<(&'static str, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// An answer without more headers.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }
}

/// What was asked and answered, for the log.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The request's id.
    pub request_id: String,
    /// Who it was, where that is known.
    pub caller: Option<Caller>,
    /// What was asked for.
    pub action: String,
    /// EC2's code of the error that was answered.
    pub error: Option<String>,
}

/// The whole API.
pub struct Service {
    works: Works,
    auth: Auth,
    keys: Arc<Mutex<AccessKeys>>,
    metrics: Metrics,
}

impl Service {
    /// On these catalogues, by these rules.
    #[must_use]
    pub fn new(clouds: Clouds, auth: Auth, keys: Arc<Mutex<AccessKeys>>) -> Self {
        let works = Works {
            clouds: Arc::new(clouds),
            background: Background::default(),
            cache: Cache::default(),
            has_public: false,
            import_dirs: ImportDirs::default(),
        };
        Self { works, auth, keys, metrics: Metrics::default() }
    }

    /// The same, whose running instances are told to have [public addresses](super::public).
    #[must_use]
    pub fn with_public_addresses(self) -> Self {
        let works = Works { has_public: true, ..self.works };
        Self { works, ..self }
    }

    /// The same, which imports disk files from these directories.
    #[must_use]
    pub fn with_import_dirs(self, import_dirs: ImportDirs) -> Self {
        let works = Works { import_dirs, ..self.works };
        Self { works, ..self }
    }

    /// The catalogues.
    #[must_use]
    pub fn clouds(&self) -> &Arc<Clouds> {
        &self.works.clouds
    }

    /// Work that goes on after its answer.
    #[must_use]
    pub fn background(&self) -> &Background {
        &self.works.background
    }

    /// Answers a request. It may take a while: files are read and written.
    pub fn answer(&self, request: &HttpRequest) -> (HttpAnswer, Told) {
        let began = Instant::now();
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/health") => return (HttpAnswer::new(200, "text/plain", "ok\n"), Told::default()),
            ("GET", "/metrics") => {
                return (HttpAnswer::new(200, "text/plain; version=0.0.4", self.metrics.text()), Told::default());
            }
            _ => {}
        }
        if self.auth.mode() == Mode::Any && !is_from_a_tool(request) {
            let why = "this address is for tools, not for web pages; its host is localhost or an IP address\n";
            return (HttpAnswer::new(403, "text/plain", why), Told { action: "-".into(), ..Told::default() });
        }
        let mut told = Told { request_id: Uuid::from_u128(random()).to_string(), ..Told::default() };
        let mut answer = self.of_caller(request, &mut told);
        answer.headers.push(("x-amzn-requestid", told.request_id.clone()));
        self.metrics.count(&told.action, told.error.as_deref(), began.elapsed());
        (answer, told)
    }

    fn of_caller(&self, request: &HttpRequest, told: &mut Told) -> HttpAnswer {
        let caller = self.auth.caller(&request.signed(), time::now());
        told.caller = caller.as_ref().ok().cloned();
        if let Some(action) = ebs::action(&request.method, &request.path) {
            told.action = action.to_owned();
            let done = caller.and_then(|caller| ebs::answer(&self.works.clouds, &caller, action, request));
            return done.unwrap_or_else(|error| {
                told.error = Some(error.code.clone());
                ebs::error(&error)
            });
        }
        if let Some(action) = request.header("x-amz-target").and_then(|target| target.strip_prefix("AmazonSSM.")) {
            told.action = ssm::ACTIONS.iter().find(|have| **have == action).map_or("-", |have| have).to_owned();
            let done = caller.and_then(|caller| ssm::answer(&self.works.clouds, &caller, action, &request.body));
            return done.unwrap_or_else(|error| {
                told.error = Some(error.code.clone());
                ssm::error(&error)
            });
        }
        let form = if request.method == "POST" { request.body.as_slice() } else { request.query.as_bytes() };
        let fields = match (request.method.as_str(), request.path.as_str()) {
            ("POST" | "GET", "/" | "") => Fields::parse(form).map_err(ApiError::from),
            _ => {
                Err(ApiError::new("InvalidAction", format!("There is nothing at {} {}", request.method, request.path)))
            }
        };
        let mut is_sts = false;
        let done = fields.and_then(|mut fields| {
            told.action = fields.take_text("Action").unwrap_or_default();
            let version = fields.take_text("Version").unwrap_or_default();
            fields.forget_signature();
            // Errors are written as the service does that was meant, those of signatures too.
            is_sts = version == sts::VERSION || sts::ACTIONS.contains(&told.action.as_str());
            Ok((fields, caller?))
        });
        let id = &told.request_id;
        let done = done.and_then(|(fields, caller)| match told.action.as_str() {
            "" => Err(ApiError::new("MissingAction", "The request must contain the parameter Action")),
            action if is_sts => sts::dispatch(&self.keys, &caller, id, action, fields),
            action => self.works.dispatch(&caller, id, action, form, fields),
        });
        match done {
            Ok(xml) => HttpAnswer::new(200, "text/xml;charset=UTF-8", xml),
            Err(error) => {
                // Not every text that somebody sends is to be a line of the metrics.
                if !call::is_action(&told.action) && !sts::ACTIONS.contains(&told.action.as_str()) {
                    told.action = "-".into();
                }
                told.error = Some(error.code.clone());
                let body = if is_sts { sts::error(&error, id) } else { ec2_error(&error, id) };
                HttpAnswer::new(error.status(), "text/xml;charset=UTF-8", body)
            }
        }
    }
}

/// Whether no browser sends it for a page of somebody else's: those say where the page is from, or give a name of the page's
/// own to this address. Where signatures are verified, such a request gets nowhere anyhow.
fn is_from_a_tool(request: &HttpRequest) -> bool {
    if request.header("origin").is_some() || request.header("sec-fetch-site").is_some_and(|site| site != "none") {
        return false;
    }
    let host = request.header("host").unwrap_or("localhost");
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn ec2_error(error: &ApiError, request_id: &str) -> String {
    let text = Xml::fragment(|xml| {
        xml.element("Response", |xml| {
            xml.element("Errors", |xml| {
                xml.element("Error", |xml| {
                    xml.member("Code", Some(&error.code));
                    xml.member("Message", Some(&error.message));
                });
            });
            xml.member("RequestID", Some(&request_id.to_owned()));
        });
    });
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")
}

/// Numbers for ids, which nobody needs to be unable to guess.
fn random() -> u128 {
    let mut bytes = [0; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    uuid::Builder::from_random_bytes(bytes).into_uuid().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_not_tools() {
        let with = |name: &str, value: &str| {
            let headers = vec![("host".to_owned(), "127.0.0.1:4566".to_owned()), (name.to_owned(), value.to_owned())];
            is_from_a_tool(&HttpRequest { headers, ..HttpRequest::default() })
        };
        assert!(with("user-agent", "aws-cli"));
        assert!(with("sec-fetch-site", "none"));
        assert!(!with("sec-fetch-site", "cross-site"));
        assert!(!with("origin", "https://example.com"));
        let at = |host: &str| {
            let headers = vec![("host".to_owned(), host.to_owned())];
            is_from_a_tool(&HttpRequest { headers, ..HttpRequest::default() })
        };
        for host in ["localhost:4566", "LOCALHOST", "127.0.0.1", "[::1]:4566", "192.168.1.4:80"] {
            assert!(at(host), "{host}");
        }
        for host in ["example.com:4566", "", "127.0.0.1.example.com", "[example.com]:80"] {
            assert!(!at(host), "{host}");
        }
    }
}
