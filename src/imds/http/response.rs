//! Answers, written as EC2 writes them.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::imds) enum Status {
    /// Here it is.
    Ok,
    /// The request is none, or what it says cannot be.
    BadRequest,
    /// It needs a token, or its token is bad or at its end.
    Unauthorized,
    /// The service is switched off; or a token was asked for through somebody else.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// That cannot be done with it, but this can.
    MethodNotAllowed(&'static str),
    /// The length of its body is not said.
    LengthRequired,
    /// Its body is too long.
    ContentTooLarge,
    /// It wants to be encouraged first.
    ExpectationFailed,
    /// Its head is too long.
    HeadTooLarge,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed(_) => "405 Method Not Allowed",
            Self::LengthRequired => "411 Length Required",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::ExpectationFailed => "417 Expectation Failed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
        }
    }

    /// What a person is shown in place of what was asked for, in the form of EC2's answers.
    fn page(self) -> String {
        let title = self.line().replacen(' ', " - ", 1);
        format!(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
             <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
             \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
             <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
             <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
        )
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::imds) struct Response {
    pub status: Status,
    pub content: Vec<u8>,
    pub media_type: &'static str,
    /// When what is told was last changed.
    pub modified: Option<SystemTime>,
    /// Seconds that the token in it, or that it was asked with, is good for.
    pub token_life: Option<u64>,
}

impl Response {
    /// That it did not go well.
    pub fn error(status: Status) -> Self {
        let content = status.page().into_bytes();
        Self { status, content, media_type: "text/html", modified: None, token_life: None }
    }

    /// Writes it behind what is in `out`: without its content if that is not wanted, and whether the connection goes on.
    pub fn write(&self, out: &mut Vec<u8>, content: bool, keep_alive: bool, now: SystemTime) {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status.line());
        let mut field = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        field("Content-Type", self.media_type);
        field("Accept-Ranges", "none");
        if let Some(modified) = self.modified {
            field("Last-Modified", &date(modified));
        }
        if let Some(life) = self.token_life {
            field("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", &life.to_string());
        }
        if let Status::MethodNotAllowed(methods) = self.status {
            field("Allow", methods);
        }
        field("Content-Length", &self.content.len().to_string());
        field("Date", &date(now));
        field("Server", "EC2ws");
        field("Connection", if keep_alive { "keep-alive" } else { "close" });
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        if content {
            out.extend_from_slice(&self.content);
        }
    }
}

/// As in `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7). A time that no calendar has is written as its beginning.
fn date(time: SystemTime) -> String {
    let print = |time: &Timestamp| DateTimePrinter::new().timestamp_to_rfc9110_string(time).ok();
    Timestamp::try_from(time)
        .ok()
        .and_then(|time| print(&time))
        .or_else(|| print(&Timestamp::UNIX_EPOCH))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: Duration = Duration::from_secs(784_111_777);

    #[test]
    fn answers_have_the_fields_of_ec2s() {
        let now = SystemTime::UNIX_EPOCH + AT;
        let response = Response {
            status: Status::Ok,
            content: b"i-1".to_vec(),
            media_type: "text/plain",
            modified: Some(SystemTime::UNIX_EPOCH),
            token_life: Some(60),
        };
        let written = |content, keep_alive| {
            let mut out = b"before ".to_vec();
            response.write(&mut out, content, keep_alive, now);
            String::from_utf8(out).unwrap()
        };
        let head = "before HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nAccept-Ranges: none\r\n\
                    Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\n\
                    Content-Length: 3\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: EC2ws\r\n";
        assert_eq!(written(true, true), format!("{head}Connection: keep-alive\r\n\r\ni-1"));
        assert_eq!(written(false, false), format!("{head}Connection: close\r\n\r\n"));
    }

    #[test]
    fn errors_come_with_a_page_that_says_so() {
        let response = Response::error(Status::MethodNotAllowed("PUT"));
        let mut out = Vec::new();
        response.write(&mut out, true, false, SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/html\r\n"), "{text}");
        assert!(text.contains("\r\nAllow: PUT\r\n"), "{text}");
        assert!(text.contains("<h1>405 - Method Not Allowed</h1>"), "{text}");
    }

    #[test]
    fn times_outside_of_calendars_are_written() {
        let far = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60)).unwrap();
        assert_eq!(date(far), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
