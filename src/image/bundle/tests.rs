//! Bundles written and read, bundles with something wrong, and bundles against openssl.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::*;
use crate::disk::foreign::Progress;
use crate::disk::{Disk, HostCache, Raw, blank};

const MIB: u64 = 1 << 20;

/// Keys take their time to be made.
static USER: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate().unwrap());
static EC2: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate().unwrap());
static OTHER: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate().unwrap());

fn description() -> Description {
    let mapping = |virtual_name: &str, device: &str| DeviceMapping {
        virtual_name: virtual_name.to_owned(),
        device: device.to_owned(),
    };
    Description {
        name: "tiny image".to_owned(),
        user: "123456789012".to_owned(),
        kind: Kind::Machine,
        architecture: "x86_64".to_owned(),
        block_device_mapping: vec![mapping("ami", "sda1"), mapping("ephemeral0", "sdb"), mapping("root", "/dev/sda1")],
        kernel_id: Some("aki-12345678".to_owned()),
        ramdisk_id: Some("ari-12345678".to_owned()),
        product_codes: vec!["A&B".to_owned(), "<12>".to_owned()],
    }
}

/// A disk with noise, a hole and its last sector in use, and its bytes.
fn disk(size: u64, noise: u64) -> (Raw, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let numbers = std::iter::successors(Some(1u64), |last| Some(last.wrapping_mul(6_364_136_223_846_793_005) + 1));
    // Too long to be found again by what compresses it.
    let block: Vec<u8> = numbers.flat_map(|number| (number >> 8).to_le_bytes()).take(100_000).collect();
    let noise: Vec<u8> = block.iter().copied().cycle().take(usize::try_from(noise).unwrap()).collect();
    file.write_all_at(&noise, 8192).unwrap();
    file.write_all_at(&[0x5a; 512], size - 512).unwrap();
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    (Raw::new(file, true).unwrap(), bytes)
}

fn bundle(disk: &dyn Disk, dir: &Path) -> Bundled {
    let mut last: Option<Progress> = None;
    let recipients = Recipients { user: &USER, ec2: &EC2.public() };
    let bundled = write(disk, &description(), recipients, dir, &mut |now| {
        assert!(last.is_none_or(|last| last.done <= now.done && last.total == now.total));
        last = Some(now);
    });
    assert!(last.is_some_and(|last| last.done == last.total));
    bundled.unwrap()
}

/// A small bundle of one part, and the bytes of its image.
fn small(dir: &Path) -> (PathBuf, Vec<u8>) {
    let (disk, bytes) = disk(2 * MIB, 300_000);
    (bundle(&disk, dir).manifest, bytes)
}

fn signed() -> Trust {
    Trust::SignedBy(USER.public())
}

fn unpack(manifest: &Path, key: &PrivateKey, trust: &Trust) -> Result<Vec<u8>, BundleError> {
    let bundle = read(manifest, key, trust)?;
    let to = tempfile::tempfile().unwrap();
    let mut last = None;
    bundle.unpack(&to, &mut |now| last = Some(now))?;
    assert!(last.is_some_and(|last: Progress| last.done == last.total));
    let mut bytes = vec![0; usize::try_from(to.metadata().unwrap().len()).unwrap()];
    to.read_exact_at(&mut bytes, 0).unwrap();
    Ok(bytes)
}

fn error(manifest: &Path, key: &PrivateKey, trust: &Trust) -> BundleError {
    let error = unpack(manifest, key, trust).expect_err("must be refused");
    assert!(error.to_string().contains(&manifest.parent().unwrap().display().to_string()), "{error}");
    error
}

/// Replaces a piece of a manifest, which must be in it.
fn replace(manifest: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(manifest).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    fs::write(manifest, text.replacen(from, to, 1)).unwrap();
}

/// What stands between two pieces of a text.
fn between(text: &str, from: &str, to: &str) -> String {
    let rest = text.split_once(from).unwrap().1;
    rest.split_once(to).unwrap().0.to_owned()
}

#[test]
fn what_was_bundled_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    // Three parts.
    let (disk, bytes) = disk(40 * MIB, 24 * MIB);
    let bundled = bundle(&disk, dir.path());
    assert_eq!(bundled.parts, 3);
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = ["tiny image.manifest.xml", "tiny image.part.00", "tiny image.part.01", "tiny image.part.02"];
    assert_eq!(names, expected);
    for key in [&*USER, &*EC2] {
        let opened = read(&bundled.manifest, key, &signed()).unwrap();
        assert_eq!(*opened.description(), description());
        assert_eq!((opened.size(), opened.bundled_size()), (40 * MIB, bundled.bundled_size));
        assert_eq!(opened.bundler().name, "amiboot");
        let to = tempfile::tempfile().unwrap();
        let written = opened.unpack(&to, &mut |_| {}).unwrap();
        assert!((24 * MIB..25 * MIB).contains(&written), "{written}");
        assert!(to.metadata().unwrap().blocks() * 512 < 26 * MIB);
        let mut back = vec![0; bytes.len()];
        to.read_exact_at(&mut back, 0).unwrap();
        assert!(back == bytes);
    }
}

#[test]
fn what_is_there_already_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, bytes) = small(dir.path());
    let (again, _) = disk(MIB, 1000);
    let recipients = Recipients { user: &USER, ec2: &EC2.public() };
    let error = write(&again, &description(), recipients, dir.path(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("manifest.xml: this is there already"), "{error}");
    let kept = dir.path().join("kept");
    fs::rename(&manifest, &kept).unwrap();
    let error = write(&again, &description(), recipients, dir.path(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("part.00: this is there already"), "{error}");
    assert!(unpack(&kept, &USER, &signed()).unwrap() == bytes);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_bundled_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let recipients = Recipients { user: &USER, ec2: &EC2.public() };
    let refused = |disk: &dyn Disk, description: &Description| {
        let error = write(disk, description, recipients, dir.path(), &mut |_| {}).unwrap_err().to_string();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        error
    };
    let large = blank(MAX_IMAGE + 512, &std::env::temp_dir(), HostCache::Used).unwrap();
    assert!(refused(&*large, &description()).contains("10 GiB"));
    let (small, _) = disk(MIB, 1000);
    for name in ["", "../x", "a/b", ".x", "x\n", "\u{e4}"] {
        let error = refused(&small, &Description { name: name.to_owned(), ..description() });
        assert!(error.starts_with("name"), "{error}");
    }
    let error = refused(&small, &Description { user: "12".to_owned(), ..description() });
    assert!(error.contains("12 digits"), "{error}");
    let error = refused(&small, &Description { product_codes: vec![String::new()], ..description() });
    assert!(error.starts_with("product code"), "{error}");
}

#[test]
fn a_wrong_key_and_a_wrong_signature_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, bytes) = small(dir.path());
    assert!(matches!(error(&manifest, &OTHER, &signed()), BundleError::WrongKey { .. }));
    let other = Trust::SignedBy(OTHER.public());
    assert!(matches!(error(&manifest, &USER, &other), BundleError::Signature { .. }));
    let text = fs::read_to_string(&manifest).unwrap();
    let signature = between(&text, "<signature>", "</signature>");
    for unsigned in ["<signature>UNSIGNED</signature>", "<signature/>", ""] {
        fs::write(&manifest, text.replace(&format!("<signature>{signature}</signature>"), unsigned)).unwrap();
        assert!(matches!(error(&manifest, &USER, &signed()), BundleError::Unsigned { .. }));
        assert!(unpack(&manifest, &USER, &Trust::Unchecked).unwrap() == bytes);
    }
    for changed in [signature.replace(&signature[..4], "0000"), "00".to_owned(), signature.clone() + "00"] {
        fs::write(&manifest, text.replace(&signature, &changed)).unwrap();
        assert!(matches!(error(&manifest, &USER, &signed()), BundleError::Signature { .. }));
    }
}

#[test]
fn a_manifest_that_was_changed_does_not_fit_its_signature() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, bytes) = small(dir.path());
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to) in [
        ("<architecture>x86_64", "<architecture>i386"),
        ("aki-12345678", "aki-12345679"),
        ("<user>123456789012", "<user>210987654321"),
        ("<size>2097152", "<size>2097153"),
        ("index=\"0\"", "index='0'"),
        ("<image><name>", "<image> x <name>"),
    ] {
        fs::write(&manifest, &text).unwrap();
        replace(&manifest, from, to);
        assert!(matches!(error(&manifest, &USER, &signed()), BundleError::Signature { .. }), "{from}");
    }
    // Laid out for reading after it was signed.
    let laid_out = text.replace("><", ">\n  <");
    fs::write(&manifest, laid_out).unwrap();
    assert!(unpack(&manifest, &USER, &signed()).unwrap() == bytes);
}

#[test]
fn parts_that_are_not_as_they_were_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, bytes) = small(dir.path());
    let part = dir.path().join("tiny image.part.00");
    let good = fs::read(&part).unwrap();
    let names_part = |error: &BundleError| assert!(error.to_string().contains("part.00"), "{error}");
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(&part, &changed).unwrap();
        let error = error(&manifest, &USER, &signed());
        assert!(matches!(error, BundleError::PartDigest { .. }), "{error}");
        names_part(&error);
    }
    for len in [0, 16, good.len() - 1] {
        fs::write(&part, &good[..len]).unwrap();
        let error = error(&manifest, &USER, &signed());
        assert!(matches!(error, BundleError::PartLength { .. }), "{error}");
        names_part(&error);
    }
    fs::write(&part, [&good[..], b"more"].concat()).unwrap();
    assert!(matches!(error(&manifest, &USER, &signed()), BundleError::PartLength { .. }));
    fs::remove_file(&part).unwrap();
    let missing = error(&manifest, &USER, &signed());
    assert!(matches!(missing, BundleError::PartMissing { .. }), "{missing}");
    names_part(&missing);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("part"), &good).unwrap();
    symlink(elsewhere.path().join("part"), &part).unwrap();
    assert!(matches!(error(&manifest, &USER, &signed()), BundleError::PartName { .. }));
    fs::remove_file(&part).unwrap();
    fs::write(&part, &good).unwrap();
    let outside = elsewhere.path().join("part").display().to_string();
    for name in ["../part", &outside, ".", "x/../part"] {
        let text = fs::read_to_string(&manifest).unwrap();
        replace(&manifest, "<filename>tiny image.part.00", &format!("<filename>{name}"));
        let error = error(&manifest, &USER, &Trust::Unchecked);
        assert!(matches!(error, BundleError::PartName { .. }), "{error}");
        fs::write(&manifest, text).unwrap();
    }
    assert!(unpack(&manifest, &USER, &signed()).unwrap() == bytes);
}

#[test]
fn sizes_and_digests_that_are_not_true_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, _) = small(dir.path());
    let text = fs::read_to_string(&manifest).unwrap();
    let size = |len| move |error: &BundleError| matches!(error, BundleError::Content { source: Damage::Size { len: 2_097_152, expected }, .. } if *expected == len);
    type Check<'a> = &'a dyn Fn(&BundleError) -> bool;
    let value = |error: &BundleError| matches!(error, BundleError::Manifest { .. });
    let digest = between(&text, "<type>machine</type><digest algorithm=\"SHA1\">", "<");
    let bundled = between(&text, "<bundled_size>", "<");
    let cases: [(&str, &str, Check); 12] = [
        ("<size>2097152", "<size>2097153", &size(2_097_153)),
        ("<size>2097152", "<size>512", &size(512)),
        ("<size>2097152", "<size>10737418241", &value),
        ("<size>2097152", "<size>-1", &value),
        ("<size>2097152", "<size>0", &value),
        (&bundled, "1000000", &|error| matches!(error, BundleError::PartLength { .. })),
        (&digest, &"0".repeat(40), &|error| matches!(error, BundleError::Content { source: Damage::Digest, .. })),
        (&digest, "00", &value),
        ("count=\"1\"", "count=\"2\"", &value),
        ("index=\"0\"", "index=\"1\"", &value),
        ("<version>2007-10-10", "<version>2009-01-01", &value),
        ("algorithm=\"AES-128-CBC\"", "algorithm=\"AES-256-CBC\"", &value),
    ];
    for (from, to, check) in cases {
        fs::write(&manifest, &text).unwrap();
        replace(&manifest, from, to);
        let error = error(&manifest, &USER, &Trust::Unchecked);
        assert!(check(&error), "{to}: {error}");
    }
    for element in ["name", "user", "digest", "size", "parts", "architecture", "machine_configuration", "image"] {
        let open = [">", " "].map(|end| (format!("<{element}{end}"), format!("<other{end}")));
        let close = [(format!("</{element}>"), "</other>".to_owned())];
        let renamed = open.iter().chain(&close).fold(text.clone(), |text, (from, to)| text.replace(from, to));
        fs::write(&manifest, renamed).unwrap();
        let error = error(&manifest, &USER, &Trust::Unchecked).to_string();
        assert!(error.contains("lacks the element"), "{element}: {error}");
    }
    fs::write(&manifest, vec![b' '; 5 << 20]).unwrap();
    assert!(error(&manifest, &USER, &signed()).to_string().contains("at most 4194304"));
    fs::write(&manifest, b"\xff\xfe").unwrap();
    assert!(error(&manifest, &USER, &signed()).to_string().contains("UTF-8"));
    assert!(matches!(error(dir.path(), &USER, &signed()), BundleError::Host { .. }));
}

#[test]
fn changed_manifests_end_in_an_image_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, bytes) = disk(64 * 1024, 1000);
    let manifest = bundle(&disk, dir.path()).manifest;
    let text = fs::read(&manifest).unwrap();
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for round in 0..400 {
        let mut changed = text.clone();
        for _ in 0..=next(3) {
            let at = next(changed.len());
            match next(4) {
                0 => drop(changed.drain(at..(at + 1 + next(40)).min(text.len()).max(at).min(changed.len()))),
                1 => changed.insert(at, b"<>&\"/0 \xff"[next(8)]),
                2 => changed[at] = b"<>&\"/09f"[next(8)],
                _ => {
                    let copy = changed[at..(at + 30).min(changed.len())].to_vec();
                    changed.splice(at..at, copy);
                }
            }
        }
        fs::write(&manifest, &changed).unwrap();
        if round % 4 == 0
            && let Ok(image) = unpack(&manifest, &USER, &Trust::Unchecked)
        {
            assert!(image == bytes);
        }
        // Whatever passes the signature is what was signed.
        if let Ok(bundle) = read(&manifest, &USER, &signed()) {
            assert_eq!(*bundle.description(), description());
        }
    }
}

/// Runs openssl with these arguments and this input.
fn openssl(arguments: &[&str], input: &[u8], dir: &Path) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests need openssl: apt-get install openssl");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // It may end before it has read all.
    let _ = writer.join().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn openssl_opens_and_checks_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, bytes) = small(dir.path());
    let text = fs::read_to_string(&manifest).unwrap();
    let run = |arguments: &[&str], input: &[u8]| openssl(arguments, input, dir.path());
    let unhex = |text: &str| manifest::unhex(text.as_bytes()).unwrap();
    for (name, key) in [("user", &*USER), ("ec2", &*EC2)] {
        fs::write(dir.path().join("key.pem"), key.to_pem().unwrap()).unwrap();
        fs::write(dir.path().join("cert.pem"), key.certificate("amiboot test").unwrap()).unwrap();
        // The certificate: by itself, and its key.
        run(&["verify", "-CAfile", "cert.pem", "cert.pem"], b"");
        let public = run(&["x509", "-in", "cert.pem", "-noout", "-pubkey"], b"");
        assert_eq!(PublicKey::from_pem(std::str::from_utf8(&public).unwrap()).unwrap(), key.public());
        let subject = String::from_utf8(run(&["x509", "-in", "cert.pem", "-noout", "-subject"], b"")).unwrap();
        assert!(subject.contains("amiboot test"), "{subject}");
        // The AES key, the image.
        let sealed =
            |what: &str| unhex(between(&text, &format!("<{name}_encrypted_{what}"), "</").split_once('>').unwrap().1);
        let open =
            |what: &str| String::from_utf8(run(&["pkeyutl", "-decrypt", "-inkey", "key.pem"], &sealed(what))).unwrap();
        let part = fs::read(dir.path().join("tiny image.part.00")).unwrap();
        let packed = run(&["enc", "-d", "-aes-128-cbc", "-K", &open("key"), "-iv", &open("iv")], &part);
        fs::write(dir.path().join("image.tar.gz"), packed).unwrap();
        let tar = Command::new("tar").args(["-xzOf", "image.tar.gz"]).current_dir(dir.path()).output().unwrap();
        assert!(tar.status.success() && tar.stdout == bytes, "{}", String::from_utf8_lossy(&tar.stderr));
    }
    // The signature, by the user's key.
    fs::write(dir.path().join("cert.pem"), USER.certificate("user").unwrap()).unwrap();
    fs::write(dir.path().join("public.pem"), run(&["x509", "-in", "cert.pem", "-noout", "-pubkey"], b"")).unwrap();
    fs::write(dir.path().join("signature"), unhex(&between(&text, "<signature>", "<"))).unwrap();
    let machine = between(&text, "<machine_configuration>", "</machine_configuration>");
    let image = between(&text, "<image>", "</image>");
    let signed = format!("<machine_configuration>{machine}</machine_configuration><image>{image}</image>");
    run(&["dgst", "-sha1", "-verify", "public.pem", "-signature", "signature"], signed.as_bytes());
}

#[test]
fn what_openssl_has_made_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], input: &[u8]| openssl(arguments, input, dir.path());
    let read_text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    run(&["genrsa", "-traditional", "-out", "pkcs1.pem", "2048"], b"");
    run(&["pkcs8", "-topk8", "-nocrypt", "-in", "pkcs1.pem", "-out", "pkcs8.pem"], b"");
    run(&["req", "-new", "-x509", "-key", "pkcs1.pem", "-subj", "/O=AWS/CN=x", "-days", "9", "-out", "cert.pem"], b"");
    let text = run(&["x509", "-in", "cert.pem", "-text"], b"");
    let key = PrivateKey::from_pem(&read_text("pkcs1.pem")).unwrap();
    assert_eq!(PrivateKey::from_pem(&read_text("pkcs8.pem")).unwrap().public(), key.public());
    for certificate in [read_text("cert.pem"), String::from_utf8(text).unwrap()] {
        assert_eq!(PublicKey::from_pem(&certificate).unwrap(), key.public());
    }
    // A bundle by tar, gzip and openssl, as EC2's own tools make it.
    let (_, bytes) = disk(MIB, 100_000);
    fs::write(dir.path().join("image"), &bytes).unwrap();
    let tar = Command::new("tar").args(["-c", "-h", "-S", "image"]).current_dir(dir.path()).output().unwrap().stdout;
    fs::write(dir.path().join("image.tar"), &tar).unwrap();
    let gzip = Command::new("gzip").args(["-9c", "image.tar"]).current_dir(dir.path()).output().unwrap().stdout;
    let (secret, iv) = ("000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f");
    let sealed = run(&["enc", "-e", "-aes-128-cbc", "-K", secret, "-iv", iv], &gzip);
    let digest = |bytes: &[u8]| {
        let said = String::from_utf8(run(&["dgst", "-sha1", "-hex"], bytes)).unwrap();
        said.trim().rsplit(' ').next().unwrap().to_owned()
    };
    let hex =
        |text: &str| manifest::hex(&run(&["pkeyutl", "-encrypt", "-certin", "-inkey", "cert.pem"], text.as_bytes()));
    let mut parts = String::new();
    let pieces: Vec<_> = sealed.chunks(50_000).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let name = format!("image.part.{index}");
        fs::write(dir.path().join(&name), piece).unwrap();
        parts += &format!(
            "<part index='{index}'><filename>{name}</filename><digest algorithm='SHA1'>{}</digest></part>",
            digest(piece)
        );
    }
    let sealed_key = hex(secret);
    let machine = "<machine_configuration><architecture>i386</architecture></machine_configuration>";
    let image = format!(
        "<image><name>image</name><user>123456789012</user><type>kernel</type><digest algorithm='SHA1'>{}</digest>\
         <size>{}</size><bundled_size>{}</bundled_size>\
         <ec2_encrypted_key algorithm='AES-128-CBC'>{sealed_key}</ec2_encrypted_key>\
         <user_encrypted_key algorithm='AES-128-CBC'>{sealed_key}</user_encrypted_key>\
         <ec2_encrypted_iv>00</ec2_encrypted_iv><user_encrypted_iv>{}</user_encrypted_iv>\
         <parts count='{}'>{parts}</parts></image>",
        digest(&tar),
        MIB,
        sealed.len(),
        hex(iv),
        pieces.len(),
    );
    let signature = run(&["dgst", "-sha1", "-sign", "pkcs8.pem"], (machine.to_owned() + &image).as_bytes());
    let manifest = format!(
        "<?xml version='1.0'?><manifest><version>2007-10-10</version><bundler><name>ec2-ami-tools</name>\
         <version>1.4</version><release>0.0.9</release></bundler>{machine}{image}<signature>{}</signature></manifest>",
        manifest::hex(&signature)
    );
    let path = dir.path().join("image.manifest.xml");
    fs::write(&path, manifest).unwrap();
    let trust = Trust::SignedBy(key.public());
    assert!(unpack(&path, &key, &trust).unwrap() == bytes);
    let opened = read(&path, &key, &trust).unwrap();
    assert_eq!((opened.description().kind, &*opened.bundler().name), (Kind::Kernel, "ec2-ami-tools"));
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| String::from_utf8(openssl(arguments, b"", dir.path())).unwrap();
    let ec = run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"]);
    let small = run(&["genrsa", "512"]);
    let encrypted = run(&["genrsa", "-aes128", "-passout", "pass:secret", "2048"]);
    let old = run(&["genrsa", "-aes128", "-traditional", "-passout", "pass:secret", "2048"]);
    let good = USER.to_pem().unwrap();
    let damaged = good.replacen('\n', "\nAAAA", 1);
    let certificate = USER.certificate("x").unwrap();
    for (text, words) in [
        ("", "no PEM"),
        ("ssh-rsa AAAA", "no PEM"),
        (&*ec, "private RSA key"),
        (&small, "512 bits"),
        (&encrypted, "openssl rsa"),
        (&old, "openssl rsa"),
        (&damaged, "damaged"),
        (&certificate, "private RSA key"),
    ] {
        let error = PrivateKey::from_pem(text).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(PublicKey::from_pem(&good).unwrap_err().to_string().contains("certificate"));
    // Lines of another length, and text around it.
    let body: String = good.lines().filter(|line| !line.contains("-----")).collect();
    let one_line = format!("Bag Attributes\r\n-----BEGIN PRIVATE KEY-----\r\n{body}\r\n-----END PRIVATE KEY-----\r\n");
    assert_eq!(PrivateKey::from_pem(&one_line).unwrap().public(), USER.public());
    assert_eq!(format!("{:?}", *USER), "PrivateKey(..)");
}
