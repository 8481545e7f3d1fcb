//! Which path a request is for.

/// A path without its escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::imds) struct Target {
    /// What is between its slashes; nothing where that is empty.
    pub segments: Vec<String>,
    /// Whether a slash is at its end.
    pub slash: bool,
}

impl Target {
    /// Reads a request's target (RFC 9112, section 3.2): a path or a whole `http` URI. A query is left out. `None` if it is
    /// neither, an escape in it is none, or a segment is `.` or `..`.
    pub fn parse(text: &str) -> Option<Self> {
        let path = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                rest.find(['/', '?']).map_or("/", |at| rest.get(at..).unwrap_or("/"))
            }
            _ => text.starts_with('/').then_some(text)?,
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let slash = path.is_empty() || path.ends_with('/');
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let segments = segments.map(decode).collect::<Option<Vec<_>>>()?;
        let dots = segments.iter().any(|segment| segment == "." || segment == "..");
        (!dots).then_some(Self { segments, slash })
    }

    /// Whether it is exactly this path, which has no slash at its end.
    pub fn is(&self, path: &[&str]) -> bool {
        !self.slash && self.segments == path
    }
}

/// Replaces escapes (RFC 3986, section 2.1); `None` where one is cut or has other than hexadecimal digits, or where they make
/// no text.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_paths() {
        for (text, segments, slash) in [
            ("/", &[][..], true),
            ("//", &[], true),
            ("/latest", &["latest"], false),
            ("/latest/", &["latest"], true),
            ("//latest///meta-data//", &["latest", "meta-data"], true),
            ("/latest/user-data?x=/..", &["latest", "user-data"], false),
            ("/a%20b/%63", &["a b", "c"], false),
            ("/a%2fb", &["a/b"], false),
            ("/%c3%a9", &["é"], false),
            ("/...", &["..."], false),
            ("http://169.254.169.254/latest", &["latest"], false),
            ("HTTP://169.254.169.254:80/latest/", &["latest"], true),
            ("http://169.254.169.254", &[], true),
            ("http://169.254.169.254?x", &[], true),
            ("/a://b", &["a:", "b"], false),
        ] {
            let target = Target::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (target.segments, target.slash),
                (segments.iter().map(ToString::to_string).collect(), slash),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_path_is_none() {
        for text in [
            "",
            "*",
            "latest",
            "169.254.169.254:80",
            "ftp://169.254.169.254/",
            "://x",
            "/..",
            "/latest/../x",
            "/%2e%2E/",
            "/latest/.",
            "/%",
            "/%4",
            "/%4g",
            "/%+1",
            "/%ff",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }
}
