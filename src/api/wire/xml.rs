//! Answers as XML.

use std::fmt::Write;

use base64ct::{Base64, Encoding};

use super::{Blob, Timestamp};
use crate::cloud::time;

/// An answer as it is written.
#[derive(Debug, Default)]
pub struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    /// What is in the answer to an action.
    #[must_use]
    pub fn content(content: &impl ToXml) -> String {
        let mut xml = Self { text: String::new(), depth: 1 };
        content.write(&mut xml);
        xml.text
    }

    /// The answer to an action: its element, with the request's id and its [content](Xml::content).
    #[must_use]
    pub fn answer(action: &str, namespace: &str, request_id: &str, content: &str) -> String {
        let mut text = String::with_capacity(content.len() + 256);
        text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = write!(text, "<{action}Response xmlns=\"{namespace}\"><requestId>{request_id}</requestId>");
        text.push_str(content);
        let _ = write!(text, "</{action}Response>");
        text
    }

    /// A document of an element's content, without a declaration.
    pub fn fragment(write: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self::default();
        write(&mut xml);
        xml.text
    }

    /// An element around more.
    pub fn element(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.text.push('<');
        self.text.push_str(name);
        self.text.push('>');
        self.depth += 1;
        write(self);
        self.depth -= 1;
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
    }

    /// A member, where it is there.
    pub fn member<T: ToXml>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.element(name, |xml| value.write(xml));
        }
    }

    /// A list. An empty one is written where it is the answer itself, or `always`; clients look for these.
    fn items<T: ToXml>(&mut self, name: &str, item: &str, items: &[T], always: bool) {
        if !items.is_empty() || always || self.depth == 1 {
            self.element(name, |xml| items.iter().for_each(|one| xml.element(item, |xml| one.write(xml))));
        }
    }

    /// A list that is left out where it is empty, unless it is the answer itself.
    pub fn list<T: ToXml>(&mut self, name: &str, item: &str, items: &[T]) {
        self.items(name, item, items, false);
    }

    /// A list that is written in any case.
    pub fn list_always<T: ToXml>(&mut self, name: &str, item: &str, items: &[T]) {
        self.items(name, item, items, true);
    }

    /// Text, escaped. What XML cannot hold is replaced (XML 1.0, section 2.2).
    pub fn text(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '\r' => self.text.push_str("&#13;"),
                '\t' | '\n' => self.text.push(char),
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => self.text.push(char::REPLACEMENT_CHARACTER),
                _ => self.text.push(char),
            }
        }
    }
}

/// What can be an element's content.
pub trait ToXml {
    /// Writes it.
    fn write(&self, xml: &mut Xml);
}

impl ToXml for String {
    fn write(&self, xml: &mut Xml) {
        xml.text(self);
    }
}

impl ToXml for i64 {
    fn write(&self, xml: &mut Xml) {
        let _ = write!(xml.text, "{self}");
    }
}

impl ToXml for f64 {
    fn write(&self, xml: &mut Xml) {
        let _ = write!(xml.text, "{self}");
    }
}

impl ToXml for bool {
    fn write(&self, xml: &mut Xml) {
        xml.text.push_str(if *self { "true" } else { "false" });
    }
}

impl ToXml for Timestamp {
    fn write(&self, xml: &mut Xml) {
        xml.text.push_str(&time::format(self.0));
    }
}

impl ToXml for Blob {
    fn write(&self, xml: &mut Xml) {
        xml.text.push_str(&Base64::encode_string(&self.0));
    }
}

/// Markup that was written before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written(pub String);

impl ToXml for Written {
    fn write(&self, xml: &mut Xml) {
        xml.text.push_str(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_stays_text() {
        let text = Xml::fragment(|xml| xml.text("<a href=\"x\">&amp;\u{1}\r\n"));
        assert_eq!(text, "&lt;a href=\"x\"&gt;&amp;amp;\u{fffd}&#13;\n");
    }

    #[test]
    fn empty_lists_are_there_only_where_they_are_looked_for() {
        struct Two;
        impl ToXml for Two {
            fn write(&self, xml: &mut Xml) {
                xml.list::<String>("a", "item", &[]);
                xml.element("b", |xml| {
                    xml.list::<String>("c", "item", &[]);
                    xml.list_always::<String>("d", "item", &[]);
                    xml.list("e", "item", &[1_i64, 2]);
                });
            }
        }
        let text = Xml::answer("Do", "urn:x", "r-1", &Xml::content(&Two));
        assert!(text.ends_with(
            "<DoResponse xmlns=\"urn:x\"><requestId>r-1</requestId><a></a><b><d></d><e><item>1</item><item>2</item></e></b></DoResponse>"
        ));
    }
}
