//! An XML text as a tree, which also knows where in the text each element stands: signatures are over those bytes.

use std::ops::Range;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::ManifestError;

/// Elements at most: a manifest has three for each part.
const MAX_ELEMENTS: usize = 64 * 1024;
/// Elements inside each other at most.
const MAX_DEPTH: usize = 16;
/// Characters of text in one element at most.
const MAX_TEXT: usize = 16 * 1024;

/// An element.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub name: String,
    /// Attributes in order.
    pub attributes: Vec<(String, String)>,
    /// The text in it, without that in elements in it.
    pub text: String,
    pub children: Vec<Element>,
    /// From the first to behind the last byte of it in the text.
    pub place: Range<usize>,
}

impl Element {
    /// The root of a text.
    ///
    /// # Errors
    /// [`ManifestError::Xml`].
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let bad = |error: &dyn std::fmt::Display| ManifestError::Xml(error.to_string());
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        let mut elements = 0;
        loop {
            let start = position(&reader);
            let event = reader.read_event().map_err(|error| bad(&error))?;
            let ended = match event {
                Event::Eof => break,
                Event::Start(tag) => {
                    elements += 1;
                    if root.is_some() || elements > MAX_ELEMENTS || open.len() >= MAX_DEPTH {
                        return Err(bad(&"more elements, or deeper ones, than a manifest has"));
                    }
                    open.push(Self::begin(&tag, start)?);
                    None
                }
                Event::Empty(tag) => {
                    elements += 1;
                    if root.is_some() || elements > MAX_ELEMENTS {
                        return Err(bad(&"more elements than a manifest has"));
                    }
                    Some(Self::begin(&tag, start)?)
                }
                Event::End(_) => open.pop(),
                Event::Text(more) => add_text(&mut open, &more.xml10_content())?,
                Event::CData(more) => add_text(&mut open, &more.xml10_content())?,
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|error| bad(&error))?.map(String::from);
                    let name = reference.into_inner();
                    let known = || quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned);
                    let text =
                        character.or_else(known).ok_or_else(|| bad(&format!("the entity {name:?} is not known")))?;
                    add_text(&mut open, &text)?
                }
                Event::DocType(_) => return Err(bad(&"it has a document type, and manifests have none")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
            };
            if let Some(mut element) = ended {
                element.place.end = position(&reader);
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
        }
        match root {
            Some(root) if open.is_empty() => Ok(root),
            _ => Err(bad(&"it ends too early")),
        }
    }

    fn begin(tag: &BytesStart<'_>, start: usize) -> Result<Self, ManifestError> {
        let bad = |error: &dyn std::fmt::Display| ManifestError::Xml(error.to_string());
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| bad(&error))?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| bad(&error))?;
            attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
        }
        Ok(Self { name: tag.name().as_ref().to_owned(), attributes, place: start..start, ..Self::default() })
    }

    /// The one element of this name in it; `None` if there is none.
    ///
    /// # Errors
    /// [`ManifestError::Repeated`].
    pub fn optional(&self, name: &'static str) -> Result<Option<&Self>, ManifestError> {
        let mut found = self.all(name);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(ManifestError::Repeated(name)),
        }
    }

    /// The one element of this name in it.
    ///
    /// # Errors
    /// [`ManifestError::Missing`], [`ManifestError::Repeated`].
    pub fn one(&self, name: &'static str) -> Result<&Self, ManifestError> {
        self.optional(name)?.ok_or(ManifestError::Missing(name))
    }

    /// All elements of this name in it.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The text without white space around it.
    pub fn content(&self) -> &str {
        self.text.trim()
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn add_text(open: &mut [Element], text: &str) -> Result<Option<Element>, ManifestError> {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
        if element.text.len() > MAX_TEXT {
            return Err(ManifestError::Xml(format!("the text of {:?} is too long", element.name)));
        }
    }
    Ok(None)
}

/// Writes elements.
#[derive(Default)]
pub(super) struct Writer(pub String);

impl Writer {
    /// An element with what `content` puts into it.
    pub fn element(&mut self, name: &str, attributes: &[(&str, &str)], content: impl FnOnce(&mut Self)) {
        self.0.push('<');
        self.0.push_str(name);
        for (key, value) in attributes {
            self.0.push_str(&format!(" {key}=\"{}\"", quick_xml::escape::escape(*value)));
        }
        self.0.push('>');
        content(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// An element with text.
    pub fn text(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.element(name, attributes, |inner| inner.0.push_str(&quick_xml::escape::escape(text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_knows_where_it_stands() {
        let text =
            "<?xml version=\"1.0\"?>\n<a><!-- no --><b x='1&amp;2'>t &lt;&#65;<![CDATA[&]]></b>\n <b/><c>u</c></a>\n";
        let root = Element::parse(text).unwrap();
        let [first, second, c] = &root.children[..] else { panic!("{root:?}") };
        assert_eq!((&*root.name, first.content(), first.attribute("x")), ("a", "t <A&", Some("1&2")));
        assert_eq!(&text[first.place.clone()], "<b x='1&amp;2'>t &lt;&#65;<![CDATA[&]]></b>");
        assert_eq!((&text[second.place.clone()], &text[c.place.clone()]), ("<b/>", "<c>u</c>"));
        assert!(matches!(root.one("b"), Err(ManifestError::Repeated("b"))));
        assert!(matches!(root.one("d"), Err(ManifestError::Missing("d"))));
        assert_eq!(root.one("c").unwrap().content(), "u");
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
        let long = format!("<a>{}</a>", "x".repeat(MAX_TEXT + 1));
        let entities = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbb\">]><a>&b;</a>";
        for text in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><a/>",
            "<a>&b;</a>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            entities,
            &deep,
            &many,
            &long,
        ] {
            assert!(matches!(Element::parse(text), Err(ManifestError::Xml(_))), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::default();
        writer.element("a", &[], |inner| inner.text("b", &[("x", "<'\">&")], "<&> \"'"));
        let root = Element::parse(&writer.0).unwrap();
        let b = root.one("b").unwrap();
        assert_eq!((b.attribute("x"), b.content()), (Some("<'\">&"), "<&> \"'"));
    }
}
