//! What a caller asks for: a form's fields as a tree, and typed values out of it.
//!
//! Whatever is not asked for by name is an error, so that nothing a caller says is passed over: parameters that EC2 does not
//! have are told by [`Fields::end`], those that it has and we do not by [`Left`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64ct::{Base64, Encoding};
use thiserror::Error;

use super::{Blob, Timestamp};
use crate::cloud::time;

/// Most parameters of a request.
const MAX_PARAMETERS: usize = 20_000;
/// Most parts of a parameter's name.
const MAX_DEPTH: usize = 16;
/// Highest index in a list.
const MAX_INDEX: u32 = 10_000;

/// What is wrong with a request's form.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The form itself.
    #[error("{0}")]
    Malformed(String),
    /// A parameter that the action does not have.
    #[error("The parameter {0} is not recognized")]
    Unknown(String),
    /// One that cannot be what it is to be.
    #[error("Value ({value}) for parameter {name} is invalid. {why}")]
    Value {
        /// Its path.
        name: String,
        /// What it was.
        value: String,
        /// What is expected.
        why: &'static str,
    },
}

impl WireError {
    /// EC2's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "MalformedQueryString",
            Self::Unknown(_) => "UnknownParameter",
            Self::Value { .. } => "InvalidParameterValue",
        }
    }
}

/// A parameter, or those that share the beginning of their names.
#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    /// Its value.
    Value(String),
    /// What follows the beginning.
    Fields(BTreeMap<String, Node>),
}

/// Parameters of one level, as yet unread.
#[derive(Debug, Default)]
pub struct Fields {
    path: String,
    nodes: BTreeMap<String, Node>,
}

impl Fields {
    /// Reads a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// `MalformedQueryString`: too many parameters, one twice, one that is both a value and a structure, text that is not
    /// UTF-8 or cannot be written as XML.
    pub fn parse(form: &[u8]) -> Result<Self, WireError> {
        let mut root = BTreeMap::new();
        for (count, (name, value)) in form_urlencoded::parse(form).enumerate() {
            if count >= MAX_PARAMETERS {
                return Err(WireError::Malformed(format!("a request may have {MAX_PARAMETERS} parameters")));
            }
            if let Some(bad) = name.chars().chain(value.chars()).find(|char| !is_xml(*char)) {
                let message = format!("a parameter has the character U+{:04X}, which is not allowed", u32::from(bad));
                return Err(WireError::Malformed(message));
            }
            insert(&mut root, &name, value.into_owned())?;
        }
        Ok(Self { path: String::new(), nodes: root })
    }

    /// Takes the text of a parameter that stands for itself, as `Action`.
    pub fn take_text(&mut self, name: &str) -> Option<String> {
        match self.nodes.remove(name)? {
            Node::Value(value) => Some(value),
            node @ Node::Fields(_) => {
                self.nodes.insert(name.to_owned(), node);
                None
            }
        }
    }

    /// Drops what a presigned address has of its signature.
    pub fn forget_signature(&mut self) {
        self.nodes.retain(|name, _| !name.starts_with("X-Amz-"));
    }

    /// A member that is no list.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn one<T: FromParameters>(&mut self, name: &str) -> Result<Option<T>, WireError> {
        let Some(node) = self.nodes.remove(name) else { return Ok(None) };
        T::from_node(join(&self.path, name), node).map(Some)
    }

    /// A list, in the order of its indices; it need not have all of them.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn list<T: FromParameters>(&mut self, name: &str) -> Result<Vec<T>, WireError> {
        let path = join(&self.path, name);
        let nodes = match self.nodes.remove(name) {
            None => return Ok(Vec::new()),
            // A list that is sent empty.
            Some(Node::Value(value)) if value.is_empty() => return Ok(Vec::new()),
            Some(Node::Value(value)) => {
                return Err(WireError::Value { name: path, value, why: "A list is expected, as in NAME.1" });
            }
            Some(Node::Fields(nodes)) => nodes,
        };
        let mut items = Vec::new();
        for (index, node) in nodes {
            let number = index.parse().ok().filter(|number| (1..=MAX_INDEX).contains(number));
            let Some(number) = number.filter(|_| !index.starts_with(['0', '+'])) else {
                let why = "An index is a number from 1 to 10000";
                return Err(WireError::Value { name: path, value: index, why });
            };
            items.push((number, node));
        }
        items.sort_unstable_by_key(|(number, _): &(u32, Node)| *number);
        items.into_iter().map(|(number, node)| T::from_node(format!("{path}.{number}"), node)).collect()
    }

    /// There must be nothing that was not read.
    ///
    /// # Errors
    /// `UnknownParameter`.
    pub fn end(self) -> Result<(), WireError> {
        match self.nodes.into_iter().next() {
            None => Ok(()),
            Some((name, node)) => Err(WireError::Unknown(join(&self.path, &first_path(name, node)))),
        }
    }
}

/// The whole name of the first parameter of a tree.
fn first_path(mut path: String, mut node: Node) -> String {
    while let Node::Fields(nodes) = node {
        let Some((name, next)) = nodes.into_iter().next() else { break };
        path = join(&path, &name);
        node = next;
    }
    path
}

/// The characters of XML 1.0, section 2.2.
fn is_xml(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn insert(root: &mut BTreeMap<String, Node>, name: &str, value: String) -> Result<(), WireError> {
    let malformed = |why: &str| WireError::Malformed(format!("the parameter {name} {why}"));
    if name.split('.').count() > MAX_DEPTH {
        return Err(malformed("has too many parts"));
    }
    let (parents, last) = name.rsplit_once('.').map_or((None, name), |(parents, last)| (Some(parents), last));
    let mut at = root;
    for part in parents.iter().flat_map(|parents| parents.split('.')) {
        at = match at.entry(part.to_owned()).or_insert_with(|| Node::Fields(BTreeMap::new())) {
            Node::Fields(nodes) => nodes,
            // `Filter=&Filter.1.Name=...`
            node @ Node::Value(_) if *node == Node::Value(String::new()) => {
                *node = Node::Fields(BTreeMap::new());
                let Node::Fields(nodes) = node else { return Err(malformed("is a value and a structure")) };
                nodes
            }
            Node::Value(_) => return Err(malformed("is a value and a structure")),
        };
    }
    match at.entry(last.to_owned()) {
        Entry::Vacant(entry) => {
            entry.insert(Node::Value(value));
            Ok(())
        }
        Entry::Occupied(entry) if matches!(entry.get(), Node::Fields(_)) && value.is_empty() => Ok(()),
        Entry::Occupied(entry) if matches!(entry.get(), Node::Fields(_)) => {
            Err(malformed("is a value and a structure"))
        }
        Entry::Occupied(_) => Err(malformed("is there twice")),
    }
}

/// A path and one more part.
#[must_use]
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What parameters can be read as.
pub trait FromParameters: Sized {
    /// Structures: takes their members.
    ///
    /// # Errors
    /// [`WireError`].
    fn from_fields(fields: &mut Fields) -> Result<Self, WireError> {
        let value = String::new();
        Err(WireError::Value { name: std::mem::take(&mut fields.path), value, why: "A single value is expected" })
    }

    /// Anything.
    ///
    /// # Errors
    /// [`WireError`].
    fn from_node(path: String, node: Node) -> Result<Self, WireError> {
        match node {
            Node::Fields(nodes) => {
                let mut fields = Fields { path, nodes };
                let read = Self::from_fields(&mut fields)?;
                fields.end()?;
                Ok(read)
            }
            // A structure that is sent empty.
            Node::Value(value) if value.is_empty() => Self::from_fields(&mut Fields { path, nodes: BTreeMap::new() }),
            Node::Value(value) => Err(WireError::Value { name: path, value, why: "A structure is expected" }),
        }
    }
}

/// Scalars: what their text must be, and how it is read.
macro_rules! scalar {
    ($type:ty, $why:literal, $read:expr) => {
        impl FromParameters for $type {
            fn from_node(name: String, node: Node) -> Result<Self, WireError> {
                let read: fn(&str) -> Option<$type> = $read;
                match node {
                    Node::Value(value) => read(&value).ok_or(WireError::Value { name, value, why: $why }),
                    Node::Fields(_) => Err(WireError::Value { name, value: String::new(), why: $why }),
                }
            }
        }
    };
}

scalar!(String, "A single value is expected", |text| Some(text.to_owned()));
scalar!(i64, "A number is expected", |text| text.trim().parse().ok());
scalar!(f64, "A number is expected", |text| text.trim().parse().ok().filter(|number: &f64| number.is_finite()));
scalar!(bool, "true or false is expected", |text| match text {
    "true" | "True" | "TRUE" | "1" => Some(true),
    "false" | "False" | "FALSE" | "0" => Some(false),
    _ => None,
});
scalar!(Timestamp, "A time is expected, as in 2026-01-31T23:59:00Z", |text| time::parse(text).map(Timestamp));
scalar!(Blob, "Base64 is expected", |text| {
    let bare: String = text.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    Base64::decode_vec(&bare).ok().map(Blob)
});

/// What of a request nobody has read: handlers take what they understand, and the rest is refused.
pub trait Left {
    /// The path of the first parameter that says something, where this is at `path`. Empty values and `false` say nothing.
    fn left(&self, path: &str) -> Option<String>;
}

impl<T: Left> Left for Option<T> {
    fn left(&self, path: &str) -> Option<String> {
        self.as_ref()?.left(path)
    }
}

impl<T: Left> Left for Vec<T> {
    fn left(&self, path: &str) -> Option<String> {
        self.iter().enumerate().find_map(|(at, item)| item.left(&format!("{path}.{}", at + 1)))
    }
}

macro_rules! left {
    ($type:ty, $says:expr) => {
        impl Left for $type {
            fn left(&self, path: &str) -> Option<String> {
                let says: fn(&$type) -> bool = $says;
                says(self).then(|| path.to_owned())
            }
        }
    };
}

left!(String, |text| !text.is_empty());
left!(i64, |_| true);
left!(f64, |_| true);
left!(bool, |yes| *yes);
left!(Timestamp, |_| true);
left!(Blob, |bytes| !bytes.0.is_empty());

#[cfg(test)]
mod tests;
