//! Where tasks find files and leave them: paths of this host, and buckets, which are directories beside the catalogue.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use crate::cloud::error::CloudError;
use crate::cloud::home::Home;

/// Most bytes of an object's key, as S3 has it.
const MAX_KEY: usize = 1024;

/// The file that a URL such as `file:///home/me/disk.vmdk` means; a path from the root on means itself.
///
/// # Errors
/// `InvalidParameterValue` for all others.
pub fn local_path(url: &str) -> Result<PathBuf, CloudError> {
    let refuse = || {
        Err(CloudError::value(format!(
            "{url:?} is no file of this host: give a URL as in file:///home/me/disk.vmdk, or a path from the root on"
        )))
    };
    let path = match url.strip_prefix("file://") {
        Some(rest) => decoded(rest.strip_prefix("localhost").unwrap_or(rest)),
        None => Some(OsString::from(url)),
    };
    match path.map(PathBuf::from) {
        Some(path) if path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0) => Ok(path),
        _ => refuse(),
    }
}

/// What a percent-encoded text means (RFC 3986, section 2.1); nothing for what is none.
fn decoded(text: &str) -> Option<OsString> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let mut bytes = text.bytes();
    let mut all = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let value = digit(bytes.next())? << 4 | digit(bytes.next())?;
            u8::try_from(value).ok()?
        } else {
            byte
        };
        all.push(byte);
    }
    Some(OsString::from_vec(all))
}

/// The file of an object in a bucket.
///
/// # Errors
/// `InvalidParameterValue` for names that no bucket has, and keys that are no path below it.
pub(super) fn object(home: &Home, bucket: &str, key: &str) -> Result<PathBuf, CloudError> {
    let is_of_bucket = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let begins_and_ends_well = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(is_of_bucket)
        && begins_and_ends_well(bucket.bytes().next())
        && begins_and_ends_well(bucket.bytes().last());
    if !is_bucket {
        return Err(CloudError::value(format!(
            "Value ({bucket}) for parameter bucket is invalid: 3 to 63 lower-case letters, digits, dots and dashes"
        )));
    }
    let is_below = Path::new(key).components().all(|part| matches!(part, Component::Normal(_)));
    if key.is_empty() || key.len() > MAX_KEY || !is_below || key.ends_with('/') || key.contains('\0') {
        return Err(CloudError::value(format!(
            "Value ({key}) for parameter objectKey is invalid: it is no path in a bucket"
        )));
    }
    Ok(home.buckets().join(bucket).join(key))
}

/// Makes the directory that a file is to be in, for its owner alone where it is not there.
///
/// # Errors
/// What the host says.
pub(super) fn make_directory_of(file: &Path) -> Result<(), CloudError> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(dir) = file.parent() else { return Ok(()) };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(CloudError::host(dir, "cannot make the directory"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_of_files_mean_them() {
        for (url, path) in
            [("file:///a/b%20c.vmdk", "/a/b c.vmdk"), ("file://localhost/a", "/a"), ("/a/b%20c", "/a/b%20c")]
        {
            assert_eq!(local_path(url).unwrap(), Path::new(path), "{url}");
        }
        for wrong in ["", "a", "file://host/a", "file:/a", "file:///a%2", "file:///a%00", "s3://b/k", "https://h/a"] {
            assert_eq!(local_path(wrong).unwrap_err().code(), "InvalidParameterValue", "{wrong}");
        }
    }

    #[test]
    fn objects_are_below_their_buckets() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let found = object(&home, "my-bucket.1", "a/ami-1.bin").unwrap();
        assert_eq!(found, dir.path().join("store/my-bucket.1/a/ami-1.bin"));
        for (bucket, key) in [
            ("ab", "k"),
            ("..", "k"),
            ("-abc", "k"),
            ("Abc", "k"),
            ("a/c", "k"),
            ("abc", ""),
            ("abc", "/k"),
            ("abc", "../k"),
            ("abc", "a/../k"),
            ("abc", "k/"),
            ("abc", "k\0"),
        ] {
            assert_eq!(object(&home, bucket, key).unwrap_err().code(), "InvalidParameterValue", "{bucket} {key}");
        }
    }

    proptest! {
        #[test]
        fn nothing_leads_out_of_the_store(bucket in ".{0,8}|[a-z.]{3,6}", key in "[a./]{0,8}|.{0,8}") {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::at(dir.path()).unwrap();
            if let Ok(path) = object(&home, &bucket, &key) {
                prop_assert!(path.starts_with(dir.path().join("store")));
                prop_assert!(path.components().all(|part| part != Component::ParentDir));
            }
            let _ = local_path(&key);
            let _ = local_path(&format!("file:///{key}"));
        }
    }
}
