//! EC2's API with tiny guests behind it, on the catalogue that the command line has too.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use base64ct::{Base64, Encoding};
use support::cloud::CloudWorld;
use support::{PATIENCE, wait_until};

/// A server; it is killed with the test.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(cloud: &CloudWorld) -> Self {
        let log = cloud.home().join("serve.log");
        let mut command = cloud.amiboot(&["serve", "--listen", "127.0.0.1:0"]);
        let child = command.stderr(File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        let mut server = Self { child, address: String::new() };
        let address = || {
            let said = std::fs::read_to_string(&log).unwrap();
            let (_, rest) = said.split_once("http://")?;
            rest.split_once(';').map(|(address, _)| address.to_owned())
        };
        wait_until("the server says where it is", || address().is_some());
        server.address = address().unwrap();
        server
    }

    /// Posts a form; gives the status and the answer.
    fn ask(&self, form: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = form.len();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{form}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    #[track_caller]
    fn done(&self, form: &str) -> String {
        let (status, answer) = self.ask(form);
        assert_eq!(status, 200, "{form}: {answer}");
        answer
    }

    /// The state of an instance, as the API tells it.
    fn state(&self, id: &str) -> String {
        let answer = self.done(&format!("Action=DescribeInstances&InstanceId.1={id}"));
        let (_, state) = answer.split_once("<instanceState>").expect("a state");
        element(state, "name")
    }
}

/// What is in the first element of a name.
#[track_caller]
fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once("</").unwrap().0.to_owned()
}

#[test]
fn an_instance_of_the_api_is_one_of_the_command_line_and_outlives_the_server() {
    let cloud = CloudWorld::new();
    let image = cloud.image("echo", "first");
    let server = Server::start(&cloud);
    let listed = server.done("Action=DescribeImages&Owner.1=self");
    assert_eq!(element(&listed, "imageId"), image);
    let run =
        format!("Action=RunInstances&ImageId={image}&InstanceType=t3.nano&MinCount=1&MaxCount=1&ClientToken=once");
    let launched = server.done(&run);
    let id = element(&launched, "instanceId");
    assert_eq!(element(&server.done(&run), "instanceId"), id);
    let (status, other) = server.ask(&format!("{run}&EbsOptimized=true&KeyName=none"));
    assert_eq!((status, element(&other, "Code").as_str()), (400, "IdempotentParameterMismatch"));
    wait_until("it runs", || server.state(&id) == "running");
    assert_eq!(cloud.state(&id), "running");
    let described = server.done(&format!("Action=DescribeInstances&InstanceId.1={id}"));
    let private = element(&described, "privateIpAddress");
    assert_eq!(element(&described, "ipAddress"), private.replacen("172.", "127.", 1));
    cloud.type_on(&id, b"hello", "HELLO");
    let console = server.done(&format!("Action=GetConsoleOutput&InstanceId={id}"));
    let console = Base64::decode_vec(&element(&console, "output")).unwrap();
    assert!(String::from_utf8_lossy(&console).contains("HELLO"));

    // The server goes, and the instance stays.
    let pid = cloud.pid(&id);
    drop(server);
    cloud.type_on(&id, b"again", "AGAIN");
    let server = Server::start(&cloud);
    assert_eq!(server.state(&id), "running");
    assert_eq!(cloud.pid(&id), pid);

    // What one does the other sees at once.
    cloud.done(&["tag", "set", &id, "Name=web"]);
    let found = server.done("Action=DescribeInstances&Filter.1.Name=tag:Name&Filter.1.Value.1=w*");
    assert_eq!(element(&found, "instanceId"), id);
    server.done(&format!("Action=CreateTags&ResourceId.1={id}&Tag.1.Key=Name&Tag.1.Value=%3Cdb%3E"));
    assert_eq!(cloud.instance(&id)["tags"]["Name"], "<db>");

    let made = server.done(&format!("Action=CreateImage&InstanceId={id}&Name=second&NoReboot=true"));
    let second = element(&made, "imageId");
    // It is ended although something else may still work on it.
    let ending = server.done(&format!("Action=TerminateInstances&InstanceId.1={id}&Force=true"));
    assert_eq!(element(&ending, "instanceId"), id);
    wait_until("it is gone", || server.state(&id) == "terminated");
    let image = server.done(&format!("Action=DescribeImages&ImageId.1={second}"));
    assert_eq!(element(&image, "imageState"), "available");
    // Killed machines are seen, too.
    let launched =
        server.done(&format!("Action=RunInstances&ImageId={second}&InstanceType=t3.nano&MinCount=1&MaxCount=1"));
    let id = element(&launched, "instanceId");
    wait_until("it runs", || server.state(&id) == "running");
    cloud.kill_machine(&id);
    wait_until("its end is seen", || server.state(&id) == "stopped");
    server.done(&format!("Action=TerminateInstances&InstanceId.1={id}"));
    drop(server);
    cloud.check();
}
