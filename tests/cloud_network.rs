//! Networks, metadata and keys of instances, as a person has them on the command line. What reaches a stock guest is shown by
//! `tests/whole_guest/ssh.rs`.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use support::cloud::{CloudWorld, path, text};
use support::finish;

/// What the process of an instance was told of its network.
fn network(cloud: &CloudWorld, id: &str) -> Value {
    let config = fs::read(cloud.home().join("instances").join(id).join("config.json")).unwrap();
    serde_json::from_slice::<Value>(&config).unwrap()["network"].clone()
}

#[test]
fn the_private_half_of_a_key_is_written_once_and_for_its_owner() {
    let cloud = CloudWorld::new();
    let made = cloud.json(&["key", "create", "mine"]);
    let file = text(&made["key_file"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let public = Command::new("ssh-keygen").args(["-y", "-f", &file]).output().unwrap();
    assert!(public.status.success(), "{public:?}");
    let public = String::from_utf8(public.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&public), words(&text(&made["public_key"])));
    cloud.refused("InvalidKeyPair.Duplicate", &["key", "create", "mine"]);
    // A file that is there is nobody's to overwrite, and then there is no key pair either.
    let taken = cloud.home().join("taken.pem");
    fs::write(&taken, "precious").unwrap();
    let ended =
        finish(&mut cloud.amiboot(&["key", "create", "other", "--type", "rsa", "--output", path(&taken)])).code(1);
    assert!(ended.stderr.contains("taken.pem"), "{ended:?}");
    assert_eq!(fs::read_to_string(&taken).unwrap(), "precious");
    let public = cloud.home().join("mine.pub");
    fs::write(&public, text(&made["public_key"])).unwrap();
    let imported = cloud.json(&["key", "import", "imported", path(&public)]);
    assert_eq!(imported[0]["key_type"], "ed25519");
    cloud.refused("InvalidKey.Format", &["key", "import", "private", &file]);
    let names: Vec<_> =
        cloud.json(&["key", "ls"]).as_array().unwrap().iter().map(|pair| text(&pair["key_name"])).collect();
    assert_eq!(names, ["imported", "mine"]);
    cloud.done(&["key", "delete", "mine", "imported"]);
    assert_eq!(cloud.json(&["key", "ls"]), serde_json::json!([]));
    // The name is free again, and so is the place of its file.
    cloud.json(&["key", "create", "mine"]);
}

#[test]
fn an_instance_is_told_what_its_launch_said_and_what_is_changed_later() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    cloud.json(&["key", "create", "mine"]);
    let data = cloud.home().join("data");
    fs::write(&data, b"#!/bin/sh\n\xff\n").unwrap();
    let options = [
        "--net",
        "isolated",
        "--key",
        "mine",
        "--user-data",
        path(&data),
        "--tag",
        "Role=web",
        "--instance-metadata-tags",
        "enabled",
        "--http-put-response-hop-limit",
        "3",
    ];
    let id = cloud.launch("first", &options);
    let told = network(&cloud, &id);
    let shown = cloud.instance(&id);
    assert_eq!(told["back_end"], "isolated");
    let metadata = &told["metadata"];
    assert_eq!(metadata["instance_id"], *id);
    assert_eq!(metadata["interface"]["private_ipv4"], shown["network_interface"]["private_ip_address"]);
    assert_eq!(metadata["interface"]["mac"], shown["network_interface"]["mac_address"]);
    assert_eq!(metadata["user_data"], "IyEvYmluL3NoCv8K");
    assert_eq!(metadata["public_keys"][0]["name"], "mine");
    assert_eq!(metadata["tags"], serde_json::json!([{"key": "Role", "value": "web"}]));
    assert_eq!(metadata["options"]["hop_limit"], 3);
    assert_eq!(metadata["options"]["tokens_required"], false);
    assert_eq!(metadata["placement"]["availability_zone_id"], "use1-az1");
    // Others believe what it is by the certificate.
    let dir = cloud.home();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    write("document", metadata["identity"]["document"].as_str().unwrap());
    write(
        "signature",
        &format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", text(&metadata["identity"]["rsa2048"])),
    );
    write("certificate", &cloud.done(&["instance", "certificate"]).stdout);
    let verified = Command::new("openssl")
        .args(["smime", "-verify", "-in", "signature", "-inform", "PEM", "-content", "document"])
        .args(["-certfile", "certificate", "-noverify"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains(&id));
    // Of a running instance its process is told at once, or the command fails.
    let changed = cloud.json(&["instance", "modify", &id, "--http-tokens", "required", "--http-endpoint", "disabled"]);
    assert_eq!(changed[0]["metadata_options"]["tokens_required"], true);
    assert_eq!(changed[0]["metadata_options"]["endpoint"], false);
    cloud.done(&["instance", "show", &id]).shows("switched off");
    cloud.refused("IncorrectInstanceState", &["instance", "modify", &id, "--user-data", path(&data)]);
    cloud.done(&["tag", "set", &id, "Role=db", "more=1"]);
    cloud.refused("InvalidParameterValue", &["tag", "set", &id, "with space=1"]);
    cloud.refused("InvalidParameterValue", &["instance", "modify", &id, "--http-put-response-hop-limit", "65"]);
    cloud.done(&["instance", "stop", "--force", &id]);
    fs::write(&data, b"other").unwrap();
    cloud.done(&["instance", "modify", &id, "--user-data", path(&data)]);
    cloud.done(&["tag", "rm", &id, "more"]);
    cloud.done(&["instance", "start", &id]);
    let again = network(&cloud, &id);
    assert_eq!(again["metadata"]["user_data"], "b3RoZXI=");
    assert_eq!(again["metadata"]["tags"], serde_json::json!([{"key": "Role", "value": "db"}]));
    // The address stays while it is stopped.
    assert_eq!(again["address"], told["address"]);
    cloud.done(&["instance", "terminate", "--force", &id]);
    assert_eq!(cloud.query("SELECT id FROM interfaces").len(), 0);
}

#[test]
fn an_instance_without_a_card_has_nobody_to_be_told() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    let id = cloud.launch("first", &["--net", "none", "--instance-metadata-tags", "enabled"]);
    assert_eq!(network(&cloud, &id), Value::Null);
    let changed = cloud.json(&["instance", "modify", &id, "--http-tokens", "required"]);
    assert_eq!(changed[0]["metadata_options"]["tokens_required"], true);
    cloud.done(&["tag", "set", &id, "Role=web"]);
    cloud.done(&["instance", "terminate", "--force", &id]);
}

#[test]
fn of_keys_that_are_made_at_once_one_is_and_its_private_half_is_there() {
    let cloud = CloudWorld::new();
    for _ in 0..4 {
        let makers: Vec<_> = (0..4)
            .map(|_| {
                cloud
                    .amiboot(&["key", "create", "mine", "--json"])
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let ended: Vec<_> = makers.into_iter().map(|maker| maker.wait_with_output().unwrap()).collect();
        let made: Vec<&std::process::Output> = ended.iter().filter(|one| one.status.success()).collect();
        assert_eq!(made.len(), 1, "{ended:?}");
        let told: Value = serde_json::from_slice(&made[0].stdout).unwrap();
        let public = Command::new("ssh-keygen").args(["-y", "-f", &text(&told["key_file"])]).output().unwrap();
        let public = String::from_utf8(public.stdout).unwrap();
        assert!(text(&told["public_key"]).starts_with(public.trim_end().trim_end_matches(" mine")), "{public} {told}");
        cloud.done(&["key", "delete", "mine"]);
    }
}

#[test]
fn what_a_launch_cannot_have_is_told_and_nothing_is_left_running() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    let run = |more: &[&str]| {
        let ended = finish(&mut cloud.amiboot(&[&["instance", "run", "first", "--type", "t3.nano"], more].concat()));
        assert!(matches!(ended.code, Some(1 | 2)), "{more:?}: {ended:?}");
        ended.stderr
    };
    let shows = |told: String, wanted: &[&str]| wanted.iter().for_each(|it| assert!(told.contains(it), "{it}: {told}"));
    shows(run(&["--net", "tap=nonesuch"]), &["nonesuch", "ip tuntap add"]);
    shows(run(&["--net", "bridge=nonesuch"]), &["nonesuch"]);
    shows(run(&["--net", "wlan"]), &["user, isolated, tap=NAME, bridge=NAME or none"]);
    shows(run(&["--net", "isolated", "-p", "8080:80"]), &["only with --net user"]);
    shows(run(&["--net", "isolated", "-p", "80"]), &["2222:22"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    shows(run(&["--net", "user", "-p", &format!("{port}:22")]), &[&port.to_string(), "-p 0:22"]);
    shows(run(&["--key", "nobodys"]), &["InvalidKeyPair.NotFound", "nobodys"]);
    let data = cloud.home().join("data");
    fs::write(&data, vec![b'x'; (16 << 10) + 1]).unwrap();
    shows(run(&["--user-data", path(&data)]), &["16384 bytes"]);
    shows(run(&["--user-data", "/nonesuch"]), &["/nonesuch"]);
    shows(run(&["--http-put-response-hop-limit", "0"]), &["InvalidParameterValue"]);
    let states: Vec<_> =
        cloud.json(&["instance", "ls"]).as_array().unwrap().iter().map(|one| text(&one["state"])).collect();
    assert!(states.iter().all(|state| state == "terminated"), "{states:?}");
    cloud.check();
}

#[test]
fn a_port_of_the_host_leads_to_the_guest_while_it_runs() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    let id = cloud.launch("first", &["--net", "user", "-p", "0:22"]);
    let shown = cloud.instance(&id);
    let forward = text(&shown["machine_status"]["forwards"][0]);
    let parts: Vec<_> = forward.split(':').collect();
    assert_eq!((parts[0], parts[2]), ("127.0.0.1", "22"), "{forward}");
    let bind = || TcpListener::bind(format!("127.0.0.1:{}", parts[1]));
    assert!(bind().is_err(), "{forward} is taken");
    cloud.done(&["instance", "terminate", "--force", &id]);
    support::wait_until("the port is free again", || bind().is_ok());
}

#[test]
fn a_guest_without_an_ssh_server_is_waited_for_as_long_as_was_said() {
    let cloud = CloudWorld::new();
    cloud.image("echo", "first");
    let id = cloud.launch("first", &["--net", "isolated"]);
    let ended = finish(&mut cloud.amiboot(&["instance", "ssh", "--timeout", "1s", &id, "true"])).code(1);
    assert!(ended.stderr.contains("no ssh server answered at port 22 within 1s"), "{ended:?}");
    cloud.done(&["instance", "stop", "--force", &id]);
    cloud.refused("IncorrectInstanceState", &["instance", "ssh", &id, "true"]);
}
