use std::process::Command;

use super::*;
use crate::cloud::home::Home;

fn cloud(dir: &std::path::Path) -> Cloud {
    Cloud::open(Home::at(&dir.join("home")).unwrap(), Scope::default()).unwrap()
}

/// What `ssh-keygen` makes of the files in a directory.
fn keygen(dir: &std::path::Path, words: &[&str]) -> String {
    let output = Command::new("ssh-keygen").args(words).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ssh_reads_what_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = cloud(dir.path());
    for (name, kind, is_like) in [("one", KeyType::Ed25519, "ssh-ed25519 "), ("two", KeyType::Rsa, "ssh-rsa ")] {
        let made = cloud.create_key_pair(name, kind, &Tags::new()).unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, made.key_material.as_bytes()).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let public = keygen(dir.path(), &["-y", "-f", name]);
        assert!(public.starts_with(is_like), "{public}");
        let words = |text: &str| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&public), words(&made.pair.public_key));
        assert!(made.pair.public_key.ends_with(name));
        let (len, mark) = if kind == KeyType::Rsa { (59, ':') } else { (44, '=') };
        assert_eq!(made.pair.key_fingerprint.len(), len, "{}", made.pair.key_fingerprint);
        assert!(made.pair.key_fingerprint.contains(mark));
    }
    let names: Vec<_> = cloud.key_pairs(&[]).unwrap().into_iter().map(|pair| pair.key_name).collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn every_form_of_a_public_key_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = cloud(dir.path());
    keygen(dir.path(), &["-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "me@here", "-f", "rsa"]);
    keygen(dir.path(), &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "ed"]);
    let openssh = std::fs::read_to_string(dir.path().join("rsa.pub")).unwrap();
    let forms = [
        openssh.clone(),
        keygen(dir.path(), &["-e", "-m", "RFC4716", "-f", "rsa.pub"]),
        keygen(dir.path(), &["-e", "-m", "PKCS8", "-f", "rsa.pub"]),
    ];
    let mut seen = Vec::new();
    for (at, text) in forms.iter().enumerate() {
        let pair = cloud.import_key_pair(&format!("rsa-{at}"), text, &Tags::new()).unwrap();
        assert_eq!(pair.key_type, KeyType::Rsa);
        let key = pair.public_key.split_whitespace().nth(1).unwrap().to_owned();
        assert_eq!(Some(key.as_str()), openssh.split_whitespace().nth(1));
        seen.push(pair.key_fingerprint);
    }
    // As the documentation of EC2 has it be checked: MD5 of the public key's DER.
    assert!(seen.iter().all(|fingerprint| *fingerprint == seen[0] && fingerprint.len() == 47), "{seen:?}");
    let ed = std::fs::read_to_string(dir.path().join("ed.pub")).unwrap();
    let pair = cloud.import_key_pair("ed", &ed, &Tags::new()).unwrap();
    let shown = keygen(dir.path(), &["-l", "-f", "ed.pub"]);
    assert!(shown.contains(pair.key_fingerprint.trim_end_matches('=')), "{shown} {pair:?}");
    assert!(pair.public_key.ends_with(" ed"), "{pair:?}");
}

#[test]
fn what_is_no_key_or_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = cloud(dir.path());
    keygen(dir.path(), &["-q", "-t", "ecdsa", "-N", "", "-f", "ec"]);
    let ecdsa = std::fs::read_to_string(dir.path().join("ec.pub")).unwrap();
    let private = std::fs::read_to_string(dir.path().join("ec")).unwrap();
    let long = "x".repeat(20_000);
    for text in
        ["", "ssh-rsa", "ssh-rsa AAAA", "nonsense", &ecdsa, &private, &long, "---- BEGIN SSH2 PUBLIC KEY ----\nAAA"]
    {
        let error = cloud.import_key_pair("k", text, &Tags::new()).unwrap_err();
        assert_eq!(error.code(), "InvalidKey.Format", "{text}: {error}");
    }
    for name in ["", " a", "a/b", ".a", "ä", &long, "a\nb"] {
        let error = cloud.create_key_pair(name, KeyType::Ed25519, &Tags::new()).err().unwrap();
        assert_eq!(error.code(), "InvalidParameterValue", "{name}");
    }
    cloud.create_key_pair("k", KeyType::Ed25519, &Tags::new()).unwrap();
    let error = cloud.create_key_pair("k", KeyType::Rsa, &Tags::new()).err().unwrap();
    assert_eq!(error.code(), "InvalidKeyPair.Duplicate");
    assert_eq!(cloud.key_pairs(&["none".into()]).unwrap_err().code(), "InvalidKeyPair.NotFound");
    assert!(cloud.delete_key_pair("k").unwrap().is_some());
    assert!(cloud.delete_key_pair("k").unwrap().is_none());
    assert!(cloud.key_pairs(&[]).unwrap().is_empty());
}
