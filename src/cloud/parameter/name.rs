//! Names of parameters, as they are given and as they are asked for.

use crate::cloud::error::CloudError;

/// What names begin with that all accounts see.
pub(super) const PUBLIC: &str = "/aws/";
/// Most characters of a name.
const MAX_NAME: usize = 1011;
/// Most levels of a name.
const MAX_LEVELS: usize = 15;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// The name.
    pub name: String,
    /// The version, where one is said.
    pub version: Option<u64>,
}

impl Reference {
    /// Reads a name, one with a version (`NAME:3`), or an Amazon Resource Name of a parameter in `region`.
    ///
    /// # Errors
    /// `ValidationException`, `HierarchyLevelLimitExceededException`.
    pub fn parse(text: &str, region: &str) -> Result<Self, CloudError> {
        let rest = match text.strip_prefix("arn:aws:ssm:") {
            Some(rest) => {
                in_region(rest, region).ok_or_else(|| wrong(format!("{text:?} is no parameter of {region}")))?
            }
            None => text.to_owned(),
        };
        let (name, version) = match rest.split_once(':') {
            Some((name, version)) => {
                let is_number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
                let number = version.parse().ok().filter(|_| is_number);
                (name, Some(number.ok_or_else(|| wrong(format!("{version:?} is no version: there are no labels")))?))
            }
            None => (rest.as_str(), None),
        };
        check(name)?;
        Ok(Self { name: name.to_owned(), version })
    }
}

/// The name in `REGION:ACCOUNT:parameter/NAME`, with the slash that all names of several levels begin with.
fn in_region(rest: &str, region: &str) -> Option<String> {
    let (_, name) = rest.strip_prefix(region)?.strip_prefix(':')?.split_once(":parameter/")?;
    let is_deep = name.contains('/');
    Some(if is_deep { format!("/{name}") } else { name.to_owned() })
}

/// The Amazon Resource Name of a parameter.
pub(super) fn arn(name: &str, region: &str, owner: &str) -> String {
    let owner = if name.starts_with(PUBLIC) { "" } else { owner };
    let slash = if name.starts_with('/') { "" } else { "/" };
    format!("arn:aws:ssm:{region}:{owner}:parameter{slash}{name}")
}

/// Refuses what is no name: levels of letters, digits, dots, dashes and underscores, with a slash before each where there are
/// several.
///
/// # Errors
/// `ValidationException`, `HierarchyLevelLimitExceededException`.
pub(super) fn check(name: &str) -> Result<(), CloudError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(wrong(format!("Parameter names have 1 to {MAX_NAME} characters")));
    }
    let levels = name.strip_prefix('/').unwrap_or(name);
    if levels.contains('/') && levels == name {
        return Err(wrong(format!("Parameter name must be a fully qualified name: /{name}")));
    }
    let is_level = |level: &str| {
        !level.is_empty() && level.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    if !levels.split('/').all(is_level) {
        let message =
            format!("Parameter name {name:?}: only a mix of letters, numbers and .-_ is allowed between slashes");
        return Err(wrong(message));
    }
    if levels.split('/').count() > MAX_LEVELS {
        return Err(CloudError::Parameter {
            code: "HierarchyLevelLimitExceededException",
            message: format!("A hierarchy can have a maximum of {MAX_LEVELS} levels"),
        });
    }
    Ok(())
}

/// A path without the slash at its end: of all names, the empty one.
///
/// # Errors
/// As [`check`].
pub(super) fn check_path(path: &str) -> Result<&str, CloudError> {
    if !path.starts_with('/') {
        return Err(wrong(format!(
            "The parameter doesn't meet the parameter name requirements: a path begins with /: {path:?}"
        )));
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if !path.is_empty() {
        check(path)?;
    }
    Ok(path)
}

fn wrong(message: String) -> CloudError {
    CloudError::Parameter { code: "ValidationException", message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cloud::testing::code;

    #[test]
    fn names_have_levels() {
        for name in ["a", "A.b-c_9", "/a", "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"] {
            assert!(check(name).is_ok(), "{name}");
        }
        assert!(check(&"/x".repeat(15)).is_ok());
        assert_eq!(code(check(&"/x".repeat(16))), "HierarchyLevelLimitExceededException");
        for name in ["", "/", "a/b", "/a/", "//a", "/a b", "/a:1", "\u{e9}", &"x".repeat(1012)] {
            assert_eq!(code(check(name)), "ValidationException", "{name:?}");
        }
        assert_eq!(check_path("/").unwrap(), "");
        assert_eq!(check_path("/a/b/").unwrap(), "/a/b");
        for path in ["", "a", "//", "/a//"] {
            assert_eq!(code(check_path(path)), "ValidationException", "{path:?}");
        }
    }

    #[test]
    fn what_is_asked_for_has_a_version_or_is_an_arn() {
        let parse = |text: &str| Reference::parse(text, "us-east-1").map(|asked| (asked.name, asked.version));
        assert_eq!(parse("/a/b").unwrap(), ("/a/b".into(), None));
        assert_eq!(parse("a:12").unwrap(), ("a".into(), Some(12)));
        assert_eq!(parse("arn:aws:ssm:us-east-1::parameter/aws/x").unwrap(), ("/aws/x".into(), None));
        assert_eq!(parse("arn:aws:ssm:us-east-1:123456789012:parameter/x:2").unwrap(), ("x".into(), Some(2)));
        for wrong in ["a:", "a:b", "a:+1", "a:1:2", "arn:aws:ssm:eu-west-1::parameter/aws/x", "arn:aws:ssm:x", "arn:x"]
        {
            assert_eq!(code(parse(wrong)), "ValidationException", "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_arn_means_its_parameter(name in "[a-z.]{1,5}|(/[A-Z0-9_-]{1,5}){2,5}|/aws(/[a-z]{1,5}){1,5}") {
            let arn = arn(&name, "us-east-1", "123456789012");
            prop_assert_eq!(Reference::parse(&arn, "us-east-1").unwrap().name, name);
        }

        #[test]
        fn no_text_does_harm(text in "\\PC{0,40}|arn:aws:ssm:[a-z0-9:/-]{0,40}") {
            let _ = Reference::parse(&text, "us-east-1");
            let _ = check_path(&text);
        }
    }
}
