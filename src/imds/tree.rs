//! All that is told, by path.
//!
//! Below `/` are the versions; what is in them is the same in each: the newest. A directory is found with and without a slash
//! at its end, and is answered with its listing: one entry a line, directories with a slash, no line end after the last.

mod categories;
mod interface;
mod names;
#[cfg(test)]
mod tests;

use super::document::Document;

/// The versions of EC2's service, oldest first, as `/` lists them.
const VERSIONS: [&str; 30] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-07-09",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// The media type of nearly everything, the identity document too.
pub(super) const TEXT: &str = "text/plain";
/// The media type of user data.
const BYTES: &str = "application/octet-stream";

/// What is found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The bytes.
    pub content: Vec<u8>,
    /// Their media type.
    pub media_type: &'static str,
}

/// Everything that is told of one instance.
#[derive(Debug)]
pub(super) struct Tree {
    version: Directory,
}

impl Tree {
    /// All that a document says.
    pub fn new(document: &Document) -> Self {
        Self { version: categories::version(document) }
    }

    /// What is at a path, given as its segments, and whether a slash is at its end.
    pub fn find(&self, segments: &[String], slash: bool) -> Option<Found> {
        let Some((version, rest)) = segments.split_first() else {
            return Some(Found { content: VERSIONS.join("\n").into_bytes(), media_type: TEXT });
        };
        if !VERSIONS.contains(&version.as_str()) {
            return None;
        }
        let mut directory = &self.version;
        let mut rest = rest.iter();
        while let Some(name) = rest.next() {
            match directory.get(name)? {
                Node::Directory(child) => directory = child,
                Node::Leaf(leaf) => return (rest.len() == 0 && !slash).then(|| leaf.clone()),
            }
        }
        Some(Found { content: directory.listing().into_bytes(), media_type: TEXT })
    }
}

#[derive(Debug)]
enum Node {
    Directory(Directory),
    Leaf(Found),
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Its line in the listing.
    shown: String,
    node: Node,
}

/// A directory; its entries are in the order in which they were added.
#[derive(Debug, Default)]
struct Directory {
    entries: Vec<Entry>,
}

impl Directory {
    /// Adds a text.
    fn text(&mut self, name: &str, text: impl Into<String>) {
        self.leaf(name, text.into().into_bytes(), TEXT);
    }

    /// Adds texts, each a line; nothing where there are none.
    fn lines<'a>(&mut self, name: &str, lines: impl IntoIterator<Item = &'a String>) {
        let lines: Vec<&str> = lines.into_iter().map(String::as_str).collect();
        if !lines.is_empty() {
            self.text(name, lines.join("\n"));
        }
    }

    /// Adds bytes.
    fn leaf(&mut self, name: &str, content: Vec<u8>, media_type: &'static str) {
        self.add(name, name.to_owned(), Node::Leaf(Found { content, media_type }));
    }

    /// Adds a directory.
    fn directory(&mut self, name: &str, directory: Self) {
        self.add(name, format!("{name}/"), Node::Directory(directory));
    }

    /// Adds a directory whose line in the listing is another than its name.
    fn directory_as(&mut self, name: &str, shown: &str, directory: Self) {
        self.add(name, shown.replace(ends_line, ""), Node::Directory(directory));
    }

    /// A name that no path or listing can have, or that is there already, is left out: what is listed can be had.
    fn add(&mut self, name: &str, shown: String, node: Node) {
        let possible = !name.is_empty() && name != "." && name != ".." && !name.contains(|c| c == '/' || ends_line(c));
        if possible && self.get(name).is_none() {
            self.entries.push(Entry { name: name.to_owned(), shown, node });
        }
    }

    fn get(&self, name: &str) -> Option<&Node> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| &entry.node)
    }

    fn listing(&self) -> String {
        self.entries.iter().map(|entry| entry.shown.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// Whether some reader of listings takes a character for a line's end.
fn ends_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}
