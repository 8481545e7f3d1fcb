//! The server of EC2's API at its socket: bad input of every kind, many clients at once, its end and what is there afterwards.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use support::api::{Answer, Api, ApiWorld, post, quoted};
use support::{finish, wait_until};

/// A form that works.
const GOOD: &str = "Action=DescribeRegions&Version=2016-11-15";

/// An error of EC2's, as clients read it; gives its code.
#[track_caller]
fn error(answer: &Answer) -> String {
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(!answer.one("Message").is_empty() && !answer.one("RequestID").is_empty(), "{answer:?}");
    answer.one("Code")
}

#[track_caller]
fn volume(api: &Api, tags: &[(&str, &str)]) -> String {
    let mut form =
        "Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a&TagSpecification.1.ResourceType=volume".to_owned();
    for (at, (key, value)) in (1..).zip(tags) {
        let tag = format!("TagSpecification.1.Tag.{at}");
        form += &format!("&{tag}.Key={}&{tag}.Value={}", quoted(key), quoted(value));
    }
    api.done(&form).one("volumeId")
}

#[test]
fn forms_that_are_none_are_errors_of_ec2() {
    let world = ApiWorld::new();
    let api = world.serve();
    let deep = format!("Action=DescribeRegions&{}=1", ["A"; 17].join("."));
    let many: String = (0..20_001).map(|at| format!("a{at}=&")).collect();
    let lists = ["2147483648", "4294967297", "99999999999999999999", "0", "-1", "+1", "01", "10001", "x", "", "1.1"];
    let indices = lists.map(|index| format!("Action=DescribeVolumes&VolumeId.{index}=vol-00000000000000000"));
    let filters = lists.map(|index| format!("Action=DescribeVolumes&Filter.1.Name=size&Filter.1.Value.{index}=1"));
    let others = [
        "",
        "&",
        "=",
        "&&&===",
        ".",
        "..=..",
        "Action",
        "Action=",
        "Action=&Action=",
        "Action=DescribeRegions&Action=DescribeRegions",
        "Action.1=DescribeRegions",
        "Action=DescribeRegions&RegionName.1=us-east-1&RegionName.1=us-west-2",
        "Action=DescribeRegions&Filter=x",
        "Action=DescribeRegions&Filter.1=x&Filter.1.Name=y",
        "Action=DescribeRegions&Filter.1.Name.1=y",
        "Action=DescribeRegions&Filter.1.Value.1=x",
        "Action=DescribeRegions&DryRun=maybe",
        "Action=DescribeRegions&DryRun.1=true",
        "Action=DescribeRegions&X=%00",
        "Action=DescribeRegions&%01=x",
        "Action=DescribeRegions&X=%EF%BF%BE",
        "Action=%3Cx%3E%26",
        "Action=DescribeRegions&RegionName.1=%ff%fe",
        "Action=DescribeRegions&RegionName.1=%zz%",
        "Action=DescribeRegions&.=x",
        "Action=DescribeRegions&RegionName.=x",
        "Action=DescribeRegions&.RegionName.1=x",
        "Action=CreateVolume&Size=1e3&AvailabilityZone=us-east-1a",
        "Action=CreateVolume&Size=9223372036854775808&AvailabilityZone=us-east-1a",
        "Action=CreateVolume&Size=-9223372036854775808&AvailabilityZone=us-east-1a",
        "Action=CreateVolume&Size=9223372036854775807&AvailabilityZone=us-east-1a",
        "Action=RunInstances&ImageId=ami-00000000&MinCount=4294967296&MaxCount=4294967297",
        "Action=RunInstances&ImageId=ami-00000000&MinCount=1&MaxCount=1&UserData=!!!",
        "Action=DescribeVolumes&NextToken=%00",
        "Action=DescribeVolumes&NextToken=____",
        "Action=ImportKeyPair&KeyName=x&PublicKeyMaterial=*",
        "Action=GetSessionToken&DurationSeconds=-1",
        "Version=2011-06-15&Action=Unknown",
    ];
    let forms = others.iter().map(|form| (*form).to_owned()).chain([deep, many]).chain(indices).chain(filters);
    // One connection takes them all: an error is an answer as any other.
    let mut http = api.connect();
    for form in forms {
        http.send(&form);
        let answer = http.answer();
        let shown = form.get(..200).unwrap_or(&form);
        assert!((400..500).contains(&answer.status), "{shown}: {answer:?}");
        let code = answer.one("Code");
        assert!(!code.is_empty() && !code.starts_with("Internal"), "{shown}: {answer:?}");
        if form.contains("Action=&Action=") || form.contains("us-west-2") {
            assert_eq!(code, "MalformedQueryString", "{shown}");
        }
    }
    assert_eq!(http_status(&mut http, GOOD), 200);
}

#[track_caller]
fn http_status(http: &mut support::api::Http, form: &str) -> u16 {
    http.send(form);
    http.answer().status
}

#[test]
fn what_is_too_large_is_refused() {
    let world = ApiWorld::new();
    let api = world.serve();
    // A body that is said to be too large, and one whose chunks are.
    let mut http = api.connect();
    http.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n");
    let block = vec![b'a'; 1 << 16];
    let _ = (0..17).all(|_| http.write(&block));
    assert_eq!(http.answer().status, 413);
    let mut http = api.connect();
    http.write("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let _ = (0..20).all(|_| http.write("10000\r\n") && http.write(&block) && http.write("\r\n"));
    assert_eq!(http.answer().status, 413);
    // The largest that there may be; it is nonsense, but it is read.
    assert_eq!(
        error(&api.ask(&format!("Action=DescribeRegions&A={}", "b".repeat((1 << 20) - 25)))),
        "UnknownParameter"
    );
    for head in [
        format!("GET /?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(70_000)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(2_000)),
    ] {
        let mut http = api.connect();
        http.write(head);
        let status = http.maybe_answer().map(|answer| answer.status);
        assert!(matches!(status, None | Some(400 | 414 | 431)), "{status:?}");
    }
    assert_eq!(api.ask(GOOD).status, 200);
}

#[test]
fn what_is_no_http_is_refused_and_does_no_harm() {
    let world = ApiWorld::new();
    let api = world.serve();
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS",
        b"HELO there\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut http = api.connect();
        http.write(bytes);
        http.end();
        let status = http.maybe_answer().map(|answer| answer.status);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?} to {}", bytes.escape_ascii());
    }
    for (request, expected) in [
        ("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /somewhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /snapshots/snap-1/blocks HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /snapshots/%00/blocks/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AmazonSSM.GetParameter\r\nContent-Length: 1\r\n\r\n{",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AmazonSSM.Nothing\r\nContent-Length: 2\r\n\r\n{}", 400),
        ("POST /snapshots HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n[]", 400),
        ("HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    ] {
        let mut http = api.connect();
        http.write(request);
        // What is asked for by HEAD has a length and no body.
        assert_eq!(http.head_status(), expected, "{request}");
    }
    assert_eq!(api.ask(GOOD).status, 200);
}

#[test]
fn slow_clients_and_those_that_go_hold_nobody_up() {
    let world = ApiWorld::new();
    let api = world.serve();
    let whole = post(GOOD);
    let mut slow = Vec::new();
    for length in [0, 1, 10, whole.len() / 2, whole.len() - 1].repeat(20) {
        let mut http = api.connect();
        http.write(&whole[..length]);
        slow.push((http, length));
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 1, whole.len()].repeat(20) {
        api.connect().write(&whole[..length]);
    }
    for _ in 0..20 {
        assert_eq!(api.ask(GOOD).status, 200);
    }
    // Those who are slow are answered when they are done.
    for (mut http, length) in slow {
        assert!(http.write(&whole[length..]));
        assert_eq!(http.answer().status, 200, "after {length} bytes");
    }
}

#[test]
fn requests_that_come_one_behind_the_other_are_answered_in_their_order() {
    let world = ApiWorld::new();
    let api = world.serve();
    let regions = ["us-east-1", "us-west-2", "eu-west-1", "us-west-1"];
    let forms = regions.map(|region| post(&format!("Action=DescribeRegions&RegionName.1={region}")));
    let mut http = api.connect();
    http.write(forms.concat());
    for region in regions {
        assert_eq!(http.answer().one("regionName"), region);
    }
    // Errors do not put it out of step.
    http.write([post("Action=Nothing"), post(GOOD), post("Action=&"), forms[1].clone()].concat());
    let status = [(); 4].map(|()| http.answer().status);
    assert_eq!(status, [400, 200, 400, 200]);
}

#[test]
fn texts_that_would_break_xml_come_back_as_they_were() {
    let world = ApiWorld::new();
    let api = world.serve();
    let strange = [
        ("<tag>", "</value></item>"),
        ("a&b;", "&amp;&#0;&lt;"),
        ("]]>", "<![CDATA[x]]>"),
        ("quotes", "\"'`"),
        ("<?xml?>", "<!-- -- -->"),
        ("space", " \t\n\r\n end"),
        ("\u{85}\u{2028}", "\u{e9}\u{4e2d}\u{1f600}\u{202e}"),
    ];
    let id = volume(&api, &strange);
    let told = api.done(&format!("Action=DescribeVolumes&VolumeId.1={id}"));
    let pairs: Vec<_> = told.all("key").into_iter().zip(told.all("value")).collect();
    let mut expected = strange.map(|(key, value)| (key.to_owned(), value.to_owned()));
    expected.sort();
    assert_eq!(pairs, expected);
    for (key, value) in strange {
        let form = format!("Action=DescribeVolumes&Filter.1.Name={}&Filter.1.Value.1=*", quoted(&format!("tag:{key}")));
        assert_eq!(api.done(&form).all("volumeId"), [id.as_str()], "{key}: {value}");
    }
    // What is told of in errors and in the log does no harm either.
    let answer = api.ask(&format!("Action={}", quoted("<Unknown>&\"\n2026-01-01 a line of its own")));
    assert_eq!(error(&answer), "InvalidAction");
    assert!(answer.one("Message").contains("<Unknown>&\""), "{answer:?}");
    let answer = api.ask(&format!("Action=DescribeRegions&{}=1", quoted("<x>\r\n&y;")));
    assert!(answer.one("Message").contains("<x>"), "{answer:?}");
    let ended = api.stop();
    assert!(!ended.stderr.lines().any(|line| line.starts_with("2026-01-01 a line")), "{ended:?}");
}

#[test]
fn two_hundred_clients_at_once_lose_nothing() {
    let world = ApiWorld::new();
    let api = world.serve();
    let made: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..200)
            .map(|at| {
                let api = &api;
                scope.spawn(move || {
                    let name = format!("client-{at}");
                    let id = volume(api, &[("client", &name)]);
                    // Whoever has made something sees it at once.
                    let form = format!("Action=DescribeVolumes&Filter.1.Name=tag:client&Filter.1.Value.1={name}");
                    assert_eq!(api.done(&form).all("volumeId"), [id.as_str()]);
                    id
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let told = api.done("Action=DescribeVolumes");
    let (mut found, mut made) = (told.all("volumeId"), made);
    found.sort();
    made.sort();
    assert_eq!(found, made);
    let mut names = told.all("value");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 200);
    assert!(told.all("status").iter().all(|state| state == "available"));
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let world = ApiWorld::new();
    let api = world.serve();
    let first = volume(&api, &[("n", "1")]);
    let snapshot = api.done(&format!("Action=CreateSnapshot&VolumeId={first}")).one("snapshotId");
    let describe = format!("Action=DescribeSnapshots&SnapshotId.1={snapshot}");
    wait_until("the snapshot", || api.done(&describe).all("status") == ["completed"]);
    let image = api.done(&format!(
        "Action=RegisterImage&Name=first&Architecture=x86_64&VirtualizationType=hvm&RootDeviceName=/dev/sda1\
         &BlockDeviceMapping.1.DeviceName=/dev/sda1&BlockDeviceMapping.1.Ebs.SnapshotId={snapshot}"
    ));
    let image = image.one("imageId");
    let run = format!("Action=RunInstances&ImageId={image}&MinCount=3&MaxCount=3&InstanceType=t3.nano&ClientToken=t");
    let mut launched = api.done(&run).all("instanceId");
    launched.sort();
    launched.dedup();
    // Whatever is under way: it was told that they are launched.
    api.kill();
    let api = world.serve();
    assert_eq!(api.done("Action=DescribeVolumes&Filter.1.Name=tag:n&Filter.1.Value.1=1").all("volumeId"), [first]);
    assert_eq!(api.done(&describe).all("status"), ["completed"]);
    assert_eq!(api.done("Action=DescribeImages&Owner.1=self").all("imageId"), [image]);
    let states = || api.done("Action=DescribeInstances").all("name");
    wait_until("that nothing is pending", || !states().iter().any(|state| state == "pending"));
    // Those that were running run; a launch that was broken off is undone, and told so.
    let told = api.done("Action=DescribeInstances");
    assert!(told.all("name").iter().all(|state| ["running", "terminated"].contains(&state.as_str())), "{told:?}");
    let ended = api.stop();
    assert!(!ended.stderr.contains(" 500 "), "{ended:?}");
}

#[test]
fn told_to_end_it_answers_what_is_under_way() {
    let world = ApiWorld::new();
    let api = world.serve();
    let whole = post("Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a");
    let mut idle = api.connect();
    assert_eq!(http_status(&mut idle, GOOD), 200);
    // Half a request, which the server is reading: what was before it on the connection was answered.
    let mut under_way = api.connect();
    assert_eq!(http_status(&mut under_way, GOOD), 200);
    under_way.write(&whole[..whole.len() - 5]);
    // It has come to the server when others that came later have been answered, as far as anybody can see.
    for _ in 0..20 {
        api.done(GOOD);
    }
    api.running().signal(Signal::TERM);
    wait_until("that it listens no more", || std::net::TcpStream::connect(&api.address).is_err());
    assert!(under_way.write(&whole[whole.len() - 5..]));
    let made = under_way.answer();
    assert_eq!(made.status, 200, "{made:?}");
    assert!(under_way.is_ended(support::PATIENCE));
    assert!(idle.is_ended(support::PATIENCE));
    let id = made.one("volumeId");
    drop(api);
    let api = world.serve();
    assert_eq!(api.done("Action=DescribeVolumes").all("volumeId"), [id]);
}

#[test]
fn who_does_not_send_its_request_does_not_keep_it_from_ending() {
    let world = ApiWorld::new();
    let api = world.serve();
    let mut stuck = api.connect();
    stuck.write(&post(GOOD)[..60]);
    api.done(GOOD);
    let ended = api.stop();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    assert!(stuck.is_ended(Duration::from_secs(1)));
}

#[test]
fn others_reach_it_only_where_they_are_verified() {
    let world = ApiWorld::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        world.refused(&["--listen", address]).code(2).says(&["can be reached by others", "--auth verify"]);
        world.refused(&["--listen", address, "--auth", "any"]).code(2).says(&["can be reached by others"]);
    }
    world.refused(&["--listen", "127.0.0.1"]).code(2);
    world.refused(&["--listen", "127.0.0.1:0", "--auth", "perhaps"]).code(2);
    world.refused(&["--listen", "192.0.2.1:0", "--auth", "verify"]).code(1).says(&["cannot listen at 192.0.2.1:0"]);
    // Where there are keys, they are asked for without a word.
    finish(&mut world.amiboot(&["access-key", "create"])).code(0);
    let api = world.serve_with(&["--listen", "0.0.0.0:0"]);
    let mut http = support::api::Http::connect(&api.address.replace("0.0.0.0", "127.0.0.1"));
    http.send(GOOD);
    assert_eq!(error(&http.answer()), "MissingAuthenticationToken");
}

#[test]
fn over_tls() {
    let world = ApiWorld::new();
    let (certificate, key) = (world.path("certificate.pem"), world.path("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=here"])
        .args(["-addext", "subjectAltName=DNS:here,IP:127.0.0.1", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    finish(&mut openssl).code(0);
    let tls = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let api = world.serve_with(&tls);
    assert!(api.running().said().contains("https://127.0.0.1:"));
    let ask = |options: &[&str]| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-verify_return_error", "-connect", &api.address]).args(options);
        client.arg("-CAfile").arg(&certificate).stdin(Stdio::piped());
        let mut client = support::Running::start(&mut client);
        client.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.wait_until("an end", |shown| shown.ends_with("ok\n") || shown.is_empty());
        client.end()
    };
    for options in [&["-verify_hostname", "here"][..], &["-tls1_2"], &["-tls1_3"]] {
        let ended = ask(options);
        assert!(ended.stdout.contains("200 OK") && ended.stdout.ends_with("ok\n"), "{options:?}: {ended:?}");
    }
    // Who does not speak it is told so by the end of the connection; the others go on.
    let mut plain = api.connect();
    plain.send(GOOD);
    assert!(!plain.rest().starts_with(b"HTTP"));
    assert!(ask(&[]).stdout.contains("200 OK"));
    drop(api);
    // What is no certificate, and one whose key is another's.
    let nothing = world.world.file("nothing.pem", "nothing\n");
    let nothing = nothing.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0"];
    world.refused(&[&listen[..], &["--tls-certificate", nothing, "--tls-key", tls[3]]].concat()).code(1);
    world.refused(&[&listen[..], &["--tls-certificate", tls[1], "--tls-key", nothing]].concat()).code(1);
    world.refused(&[&listen[..], &tls[..2]].concat()).code(2);
    let other = world.path("other.pem");
    finish(Command::new("openssl").args(["genrsa", "-out"]).arg(&other).arg("2048")).code(0);
    let ended =
        world.refused(&[&listen[..], &["--tls-certificate", tls[1], "--tls-key", other.to_str().unwrap()]].concat());
    ended.code(1).says(&["certificate"]);
    assert!(fs::metadata(&certificate).is_ok());
}

#[test]
fn health_and_metrics_tell_how_it_is() {
    let world = ApiWorld::new();
    let api = world.serve();
    let get = |path: &str| {
        let mut http = api.connect();
        http.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        http.answer()
    };
    assert_eq!((get("/health").status, get("/health").body.as_str()), (200, "ok\n"));
    api.done(GOOD);
    api.ask("Action=Nothing1");
    api.ask("Action=Nothing2");
    api.ask("Action=DescribeVolumes&VolumeId.1=vol-00000000000000000");
    let metrics = get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    for line in [
        "amiboot_requests_total{action=\"DescribeRegions\",code=\"ok\"} 1",
        "amiboot_requests_total{action=\"DescribeVolumes\",code=\"InvalidVolume.NotFound\"} 1",
        "amiboot_requests_total{action=\"-\",code=\"InvalidAction\"} 2",
        "amiboot_request_seconds_count{action=\"DescribeRegions\"} 1",
    ] {
        assert!(metrics.body.lines().any(|have| have == line), "{line} in {}", metrics.body);
    }
    // Every request has a line of the log, with its number.
    let answer = api.ask(GOOD);
    let id = answer.header("x-amzn-requestid").unwrap().to_owned();
    assert_eq!(answer.one("requestId"), id);
    api.running().wait_for_said(&id);
    let quiet = world.serve_with(&["--quiet"]);
    quiet.done(GOOD);
    assert_eq!(quiet.stop().stderr.lines().count(), 1);
}
