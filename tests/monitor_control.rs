//! An instance's console and its control socket, as they are used and as they are abused.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use amiboot::monitor::client::{Client, ClientError, Reason};
use amiboot::monitor::config::VolumeConfig;
use amiboot::monitor::control::socket;
use amiboot::monitor::protocol::{FailureKind, State};
use support::instance::{Instance, read_until};
use support::{Ended, Running, quoted, wait_until};

#[test]
fn the_console_is_shared() {
    let instance = Instance::new("echo");
    let running = instance.start("type\r\n");
    let mut one = instance.client().attach(1000).unwrap();
    let mut two = instance.client().attach(0).unwrap();
    assert!(read_until(&mut one, "type\r\n").ends_with("type\r\n"));
    wait_until("all are attached", || instance.client().status().unwrap().console.attached == 2);
    one.write_all(b"hello\n").unwrap();
    for console in [&mut one, &mut two] {
        assert_eq!(read_until(console, "HELLO\n"), "HELLO\n");
    }
    two.write_all(b"again\n").unwrap();
    for console in [&mut one, &mut two] {
        assert_eq!(read_until(console, "AGAIN\n"), "AGAIN\n");
    }
    drop(two);
    wait_until("one is attached", || instance.client().status().unwrap().console.attached == 1);
    // The guest's last words come before the end.
    one.write_all(b"bye\nq").unwrap();
    let mut rest = Vec::new();
    one.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"BYE\n"), "{:?}", String::from_utf8_lossy(&rest));
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::PoweredOff);
    assert!(instance.log().ends_with("BYE\n"));
}

#[test]
fn one_who_reads_nothing_holds_nobody() {
    let instance = Instance::new("flood");
    let running = instance.start("dull");
    let mut stuck = instance.client().attach(0).unwrap();
    let mut quick = instance.client().attach(0).unwrap();
    // More than its socket and the backlog hold.
    let mut seen = 0;
    while seen < 700 << 10 {
        seen += quick.read(&mut [0; 8192]).unwrap();
    }
    let told = read_until(&mut stuck, "were not read in time]");
    assert!(told.contains("dull") && told.contains("[amiboot: "));
    // From there on it gets the newest.
    read_until(&mut stuck, "dull guest");
    instance.client().quit().unwrap();
    let mut rest = Vec::new();
    stuck.read_to_end(&mut rest).unwrap();
    running.end().code(0);
}

#[test]
fn a_flood_is_bounded_and_its_newest_is_kept() {
    let instance = Instance::new("flood");
    let running = instance.start("dull");
    let keep = instance.config.console_log.keep;
    let older = instance.path("console.log.1");
    let written = || instance.client().status().unwrap().console.written;
    wait_until("several turns", || written() > 5 * keep);
    // Read while it is written to, it is whole lines.
    for _ in 0..20 {
        let log = instance.log();
        assert!(log.len() as u64 >= keep && log.len() as u64 <= 2 * keep, "{}", log.len());
        let line = "all work and no play makes a dull guest\r\n";
        let whole = log.split_inclusive('\n').skip(1).filter(|l| l.ends_with('\n'));
        assert!(whole.into_iter().all(|l| l == line));
    }
    assert!(older.metadata().unwrap().len() <= keep);
    assert_eq!(older.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    instance.client().quit().unwrap();
    running.end().code(0);
}

#[test]
fn a_log_that_cannot_grow_costs_the_log_only() {
    let mut instance = Instance::new("flood");
    instance.config.console_log.keep = 1 << 20;
    // Files of this process end at 32 KiB, as if the disk were full.
    let running = Running::start(&mut instance.world.shell(&format!("ulimit -f 32; exec {}", quoted(&instance.vmm()))));
    wait_until("the log is full", || {
        let connected = Client::connect(&instance.config.control_socket);
        connected.is_ok_and(|mut client| client.status().unwrap().console.not_kept.is_some())
    });
    let mut client = instance.client();
    let before = client.status().unwrap().console;
    wait_until("the guest goes on", || instance.client().status().unwrap().console.written > before.written + 100_000);
    assert_eq!(instance.log().len(), 32 << 10);
    // Who is attached sees it all the same.
    let mut console = instance.client().attach(0).unwrap();
    read_until(&mut console, "dull guest");
    client.quit().unwrap();
    running.end().code(0);
    assert_eq!(instance.reason(), Reason::Forced);
}

/// The answer to what is sent raw, if there is one before the connection ends.
fn answer_to(stream: &UnixStream, bytes: &[u8]) -> Option<serde_json::Value> {
    let mut writer = stream;
    // It may have been closed before all of it was sent.
    let _ = writer.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
}

#[test]
fn what_is_no_request_is_answered_so() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let error = |bytes: &[u8]| answer_to(&instance.stranger(), bytes).unwrap()["error"].clone();
    for bytes in [
        &b"\n"[..],
        b"{}\n",
        b"nonsense\n",
        b"\xff\xfe\n",
        b"{\"request\":\"fly\"}\n",
        b"{\"request\":\"stop\",\"when\":1}\n",
        b"{\"request\":\"snapshot\",\"volumes\":[\"vol-1\"]}\n",
    ] {
        assert_eq!(error(bytes)["kind"], "bad-request", "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(error(&vec![b'x'; 2 << 20])["kind"], "bad-request");
    assert_eq!(error(&[vec![b' '; 1_070_000], b"\n".to_vec()].concat())["kind"], "bad-request");
    assert_eq!(error(&[vec![b'['; 60_000], b"\n".to_vec()].concat())["kind"], "bad-request");
    // Half a request and its end: nothing to answer.
    assert_eq!(answer_to(&instance.stranger(), b"{\"request\":\"quit\"}"), None);
    // Several at once are answered one after the other.
    let stream = instance.stranger();
    (&stream).write_all(&b"{\"request\":\"status\"}\n".repeat(50)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answers: Vec<_> = BufReader::new(&stream).lines().map(Result::unwrap).collect();
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|line| line.starts_with("{\"ok\":")));
    // Open files that nobody asked for, too many, and of the wrong number.
    let null = File::open("/dev/null").unwrap();
    let open_files = || fs::read_dir(format!("/proc/{}/fd", running.pid().as_raw_nonzero())).unwrap().count();
    let before = open_files();
    for (request, count) in [
        (&b"{\"request\":\"status\"}\n"[..], 1),
        (b"{\"request\":\"snapshot\",\"volumes\":[\"vol-1\"]}\n", 3),
        (b"{\"request\":\"status\"}\n", 200),
        (b"half", 30),
    ] {
        let stream = instance.stranger();
        socket::send(&stream, request, &vec![null.as_fd(); count]).unwrap();
        let answer = answer_to(&stream, b"");
        assert!(request == b"half" || answer.unwrap()["error"]["kind"] == "bad-request");
    }
    wait_until("all of them are closed", || open_files() <= before);
    // What this machine cannot do.
    let mut client = instance.client();
    let refused = |done: Result<(), ClientError>| match done {
        Err(ClientError::Refused(failure)) => failure.kind,
        other => panic!("{other:?}"),
    };
    let volume = instance.config.volumes[0].clone();
    let files = [null.as_fd(), null.as_fd()];
    assert_eq!(refused(client.snapshot(&[(&volume.id, files)], true).map(drop)), FailureKind::Unsupported);
    assert_eq!(refused(client.unplug(&volume.id, true)), FailureKind::State);
    assert_eq!(refused(client.resize(&volume.id, 1 << 30)), FailureKind::Unsupported);
    assert_eq!(refused(client.plug(volume.clone())), FailureKind::State);
    let another = VolumeConfig { device: "/dev/sdf".into(), id: "vol-0123456789abcdef9".into(), ..volume };
    assert_eq!(refused(client.plug(another.clone())), FailureKind::Unsupported);
    assert_eq!(refused(client.unplug(&another.id, true)), FailureKind::NotFound);
    assert_eq!(client.status().unwrap().state, State::Running);
    client.quit().unwrap();
    running.end().code(0);
}

#[test]
fn a_crowd_and_those_who_go_away_keep_nobody_out() {
    let instance = Instance::new("echo");
    let running = instance.start("type\r\n");
    let mut console = instance.client().attach(0).unwrap();
    let crowd: Vec<UnixStream> = (0..1000)
        .map(|i| {
            let mut stream = instance.stranger();
            match i % 4 {
                0 => {}
                // Half a request.
                1 => drop(stream.write_all(b"{\"request\":")),
                // A request whose answer is never read, and one that nobody waits for.
                2 => drop(stream.write_all(&b"{\"request\":\"status\"}\n".repeat(20))),
                _ => {
                    let _ = stream.write_all(b"{\"request\":\"reset\"}\n{\"request\":");
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
            stream
        })
        .collect();
    assert_eq!(instance.client().status().unwrap().id, instance.config.id);
    drop(crowd);
    // Who is attached has not been closed for any of them.
    console.write_all(b"still\n").unwrap();
    read_until(&mut console, "STILL\n");
    let mut client = instance.client();
    assert!(client.status().is_ok());
    client.quit().unwrap();
    running.end().code(0);
}

#[test]
fn what_is_typed_on_the_heels_of_the_request_is_typed_whole_and_consoles_are_bounded() {
    let instance = Instance::new("echo");
    let running = instance.start("type\r\n");
    let stream = instance.stranger();
    // More than waits for the guest at once.
    let typed = [vec![b'a'; 20_000], vec![b'\n']].concat();
    (&stream).write_all(&[b"{\"request\":\"attach-console\"}\n", &typed[..]].concat()).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"ok\":null}\n");
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert!(line.to_lowercase().as_bytes() == typed, "{} bytes: {:.40}...", line.len(), line);
    // Its input has ended, and the output goes on.
    stream.shutdown(Shutdown::Write).unwrap();
    let mut others: Vec<_> = (0..15).map(|_| instance.client().attach(0).unwrap()).collect();
    let refused = instance.client().attach(0).unwrap_err().to_string();
    assert!(refused.contains("16 are attached"), "{refused}");
    others[0].write_all(b"x\nq").unwrap();
    line.clear();
    reader.read_to_string(&mut line).unwrap();
    assert_eq!(line, "X\n");
    running.end().code(0);
}

/// Numbers that look random, from a seed (Marsaglia's xorshift).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

#[test]
fn garbage_ends_nothing_but_its_own_connection() {
    let instance = Instance::new("halt");
    let running = instance.start("ready");
    let requests: [&[u8]; 5] = [
        b"{\"request\":\"status\"}\n",
        b"{\"request\":\"attach-console\",\"replay\":100}\n",
        b"{\"request\":\"snapshot\",\"volumes\":[\"vol-0123456789abcdef0\"]}\n",
        b"{\"request\":\"unplug\",\"volume\":\"vol-0123456789abcdef0\",\"force\":true}\n",
        b"{\"request\":\"resize\",\"volume\":\"vol-0123456789abcdef0\",\"size\":1}\n",
    ];
    let null = File::open("/dev/null").unwrap();
    for seed in 1..300 {
        let mut seeded = Seeded(seed);
        let mut bytes = requests[seeded.below(requests.len())].repeat(1 + seeded.below(3));
        for _ in 0..seeded.below(4) {
            let at = seeded.below(bytes.len());
            match seeded.below(3) {
                0 => bytes[at] = u8::try_from(seeded.below(256)).unwrap(),
                1 => bytes.truncate(at + 1),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let stream = instance.stranger();
        let files = vec![null.as_fd(); seeded.below(5)];
        // It may close the connection before it has all.
        let _ = socket::send(&stream, &bytes, &files);
        if seeded.below(2) == 0 {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let _ = (&stream).read(&mut [0; 100]);
        }
    }
    let status = instance.client().status().unwrap();
    assert_eq!((status.state, status.restarts), (State::Running, 0));
    instance.client().quit().unwrap();
    let Ended { stderr, .. } = running.end().code(0);
    assert!(!stderr.contains("panicked"), "{stderr}");
}
