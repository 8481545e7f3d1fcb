use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::*;
use crate::imds::testing::document;

/// A signer; keys take time to make.
fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let key = PrivateKey::generate().unwrap();
        let certificate = generate_certificate(&key).unwrap();
        Signer::new(key, certificate).unwrap()
    })
}

/// Whether a command of openssl ends well; what it writes.
fn openssl(directory: &Path, arguments: &str) -> (bool, String) {
    let arguments: Vec<_> = arguments.split(' ').collect();
    let output =
        Command::new("openssl").args(&arguments).current_dir(directory).output().expect("openssl is installed");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_document_is_written_as_ec2_writes_it() {
    let mut document = document();
    let expected = r#"{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "eu-west-1a",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "t3.micro",
  "kernelId" : null,
  "pendingTime" : "2026-11-24T14:05:26Z",
  "privateIp" : "172.31.5.9",
  "ramdiskId" : null,
  "region" : "eu-west-1",
  "version" : "2017-09-30"
}"#;
    assert_eq!(text(&document), expected);
    document.product_codes = vec!["one".into(), "t\"wo".into()];
    document.kernel_id = Some("aki-1".into());
    document.ramdisk_id = Some("ari-1".into());
    let value: serde_json::Value = serde_json::from_str(&text(&document)).unwrap();
    assert_eq!(value["marketplaceProductCodes"], serde_json::json!(["one", "t\"wo"]));
    assert_eq!((&value["kernelId"], &value["ramdiskId"]), (&"aki-1".into(), &"ari-1".into()));
}

#[test]
fn openssl_takes_the_signatures_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let identity = signer().sign(&document()).unwrap();
    assert_eq!(identity.pkcs7, identity.rsa2048);
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
    write("document", &identity.document);
    write("other", &identity.document.replace("t3.micro", "t3.large"));
    write("certificate", signer().certificate());
    write("pkcs7", &format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", identity.rsa2048));
    write("signature", &format!("{}\n", identity.signature));

    // Without -binary, openssl cms gives a file of content the line ends of mails before it looks at it.
    for program in ["smime", "cms -binary"] {
        let verify = |content: &str| {
            openssl(at, &format!("{program} -verify -in pkcs7 -inform PEM {content}-certfile certificate -noverify"))
        };
        let (good, said) = verify("-content document ");
        assert!(good, "{program}: {said}");
        let (good, said) = verify("");
        assert!(good && said.contains("\"instanceId\" : \"i-0123456789abcdef0\""), "{program}: {said}");
        assert!(!verify("-content other ").0, "{program}");
        let trusted = format!("{program} -verify -in pkcs7 -inform PEM -certfile certificate -CAfile certificate");
        let (good, said) = openssl(at, &format!("{trusted} -purpose any"));
        assert!(good, "{program}: {said}");
    }

    let (good, said) = openssl(at, "base64 -d -in signature -out raw");
    assert!(good, "{said}");
    let (good, said) = openssl(at, "x509 -in certificate -pubkey -noout -out public");
    assert!(good, "{said}");
    let (good, said) = openssl(at, "dgst -sha256 -verify public -signature raw document");
    assert!(good, "{said}");
    assert!(!openssl(at, "dgst -sha256 -verify public -signature raw other").0);
    let (_, said) = openssl(at, "x509 -in certificate -noout -subject");
    assert!(said.contains("amiboot instance identity"), "{said}");
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let other = PrivateKey::generate().unwrap();
    assert!(matches!(Signer::new(other, signer().certificate().into()), Err(SignerError::Mismatch)));
    let key = || PrivateKey::from_pem(&signer().key.to_pem().unwrap()).unwrap();
    assert!(matches!(Signer::new(key(), "nothing".into()), Err(SignerError::Key(KeyError::NotPem))));
    let public = signer().certificate().replace("CERTIFICATE", "NOTHING");
    assert!(matches!(Signer::new(key(), public), Err(SignerError::Key(KeyError::Other { .. }))));
}

#[test]
fn lines_are_64_characters() {
    assert_eq!(lines(b""), "");
    let text = lines(&[0; 97]);
    assert_eq!(text.split('\n').map(str::len).collect::<Vec<_>>(), [64, 64, 4]);
    assert_eq!(lines(&[0; 48]).len(), 64);
}

#[test]
fn key_and_certificate_stay_the_same() {
    let directory = tempfile::tempdir().unwrap();
    // As if as many processes came at once.
    let certificates: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| load_or_create(directory.path()).unwrap().certificate().to_owned()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let again = load_or_create(directory.path()).unwrap();
    assert!(certificates.iter().all(|certificate| certificate == again.certificate()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["identity-certificate.pem", "identity-key.pem"]);

    // A lost certificate is made anew for the same key; a damaged one, or that of another key, says which file it is.
    std::fs::remove_file(directory.path().join("identity-certificate.pem")).unwrap();
    assert_eq!(load_or_create(directory.path()).unwrap().key.public(), again.key.public());
    std::fs::write(directory.path().join("identity-certificate.pem"), signer().certificate()).unwrap();
    let error = load_or_create(directory.path()).unwrap_err().to_string();
    assert!(error.contains("identity-certificate.pem: the certificate is not that of the key"), "{error}");
    std::fs::write(directory.path().join("identity-key.pem"), "no key").unwrap();
    let error = load_or_create(directory.path()).unwrap_err().to_string();
    assert!(error.contains("identity-key.pem"), "{error}");
    let error = load_or_create(&directory.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("none"), "{error}");
}
