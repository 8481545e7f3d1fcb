//! A server of EC2's API that starts no guests, and a client that can also do what none does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use rustix::process::Signal;

use super::{Ended, PATIENCE, Running, World, finish};

/// A directory for a catalogue, and servers on it.
pub struct ApiWorld {
    pub world: World,
}

impl ApiWorld {
    pub fn new() -> Self {
        Self { world: World::new() }
    }

    /// The program, on this catalogue.
    pub fn amiboot(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.amiboot();
        command.env("AMIBOOT_HOME", self.world.path("home")).args(arguments);
        for name in ["AWS_REGION", "AMIBOOT_OWNER", "AMIBOOT_LISTEN"] {
            command.env_remove(name);
        }
        command
    }

    #[track_caller]
    pub fn serve(&self) -> Api {
        self.serve_with(&[])
    }

    #[track_caller]
    pub fn serve_with(&self, options: &[&str]) -> Api {
        let here: &[&str] = if options.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let running = Running::start(&mut self.amiboot(&[&["serve", "--backend", "stub"], here, options].concat()));
        running.wait_for_said("EC2's API is at ");
        running.wait_for_said("\n");
        let said = running.said();
        let (_, rest) = said.split_once("://").unwrap();
        let address = rest.split(';').next().unwrap().to_owned();
        Api { running: Some(running), address }
    }

    /// A server that does not come up; what it says.
    #[track_caller]
    pub fn refused(&self, options: &[&str]) -> Ended {
        finish(&mut self.amiboot(&[&["serve", "--backend", "stub"], options].concat()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }
}

/// A server that runs. It has to end well.
pub struct Api {
    running: Option<Running>,
    pub address: String,
}

impl Api {
    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn connect(&self) -> Http {
        Http::connect(&self.address)
    }

    /// One form on a connection of its own.
    #[track_caller]
    pub fn ask(&self, form: &str) -> Answer {
        let mut http = self.connect();
        http.send(form);
        http.answer()
    }

    /// One that is done; its answer.
    #[track_caller]
    pub fn done(&self, form: &str) -> Answer {
        let answer = self.ask(form);
        assert_eq!(answer.status, 200, "{form}: {answer:?}");
        answer
    }

    /// Kills it, as nothing should.
    pub fn kill(mut self) {
        let mut running = self.running.take().unwrap();
        running.signal(Signal::KILL);
        running.wait_for_exit();
    }

    /// Ends it as an init system does, and looks at what it has said.
    #[track_caller]
    pub fn stop(mut self) -> Ended {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        running.end().code(0)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if thread::panicking() {
            eprintln!("the server said:\n{}", running.said());
            return;
        }
        running.signal(Signal::TERM);
        running.end().code(0);
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The texts of all elements of a name, in order; the whole has to be XML.
    #[track_caller]
    pub fn all(&self, name: &str) -> Vec<String> {
        let mut reader = Reader::from_str(&self.body);
        let (mut open, mut found) = (Vec::new(), Vec::new());
        loop {
            let event = reader.read_event().unwrap_or_else(|error| panic!("{error}: {self:?}"));
            match event {
                Event::Start(tag) => open.push((tag.name().as_ref().to_owned(), String::new())),
                Event::Text(text) => match open.last_mut() {
                    Some((_, content)) => content.push_str(&text.xml10_content()),
                    None => assert_eq!(text.xml10_content().trim(), "", "{self:?}"),
                },
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().unwrap().map(String::from);
                    let name = reference.into_inner();
                    let known = || resolve_predefined_entity(&name).map(str::to_owned);
                    let text = character.or_else(known).unwrap_or_else(|| panic!("&{name}; in {self:?}"));
                    open.last_mut().expect("a reference outside of all elements").1.push_str(&text);
                }
                Event::End(_) => {
                    let (tag, text) = open.pop().unwrap();
                    if tag == name {
                        found.push(text);
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert!(open.is_empty(), "{self:?}");
        found
    }

    /// The text of the only element of a name.
    #[track_caller]
    pub fn one(&self, name: &str) -> String {
        let mut all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {self:?}");
        all.remove(0)
    }
}

/// A connection.
pub struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    #[track_caller]
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes. A server that has had enough may have closed the connection meanwhile.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a form.
    pub fn send(&mut self, form: &str) {
        self.write(post(form));
    }

    /// Nothing more is sent.
    pub fn end(&mut self) {
        self.stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Reads an answer; nothing where the connection ends before one begins.
    #[track_caller]
    pub fn maybe_answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).unwrap_or_default() == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        Some(answer)
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.maybe_answer().expect("the connection ended without an answer")
    }

    /// The status of an answer, whose body is not read.
    #[track_caller]
    pub fn head_status(&mut self) -> u16 {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status: {line:?}"))
    }

    /// What comes until the end of the connection, whatever it is.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A connection that is reset has ended, too.
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Whether the server has ended the connection, or does in that time.
    pub fn is_ended(&mut self, within: Duration) -> bool {
        self.stream.get_mut().set_read_timeout(Some(within)).unwrap();
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}

/// The bytes of a request with a form.
pub fn post(form: &str) -> Vec<u8> {
    let length = form.len();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), form.as_bytes()].concat()
}

/// A value as it is written in a form.
pub fn quoted(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}
