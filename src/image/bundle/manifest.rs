//! The manifest of a bundle, version 2007-10-10.

use std::fmt;
use std::str::FromStr;

use super::MAX_IMAGE;
use super::xml::{Element, Writer};

/// The version that is read and written.
const VERSION: &str = "2007-10-10";
/// Bytes of a manifest at most. That of 10 GiB in parts of 10 MiB has 200 KiB.
pub(super) const MAX_LEN: u64 = 4 << 20;
/// Parts at most: ten times as many as there are of the largest image.
pub(super) const MAX_PARTS: usize = 10 * 1024;
/// Bytes that packing and encrypting may add to an image: to every 16 KiB a few, to every file some more.
const MAX_ADDED: u64 = MAX_IMAGE / 1024 + (1 << 20);
/// Characters of a field at most.
const MAX_FIELD: usize = 1024;
/// What stands for a signature where there is none.
const UNSIGNED: &str = "UNSIGNED";

/// Why a manifest cannot be understood. The message begins in the middle of a sentence: "this manifest ...".
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than any manifest has.
    #[error("has {0} bytes, at most {MAX_LEN} are possible; give the file NAME.manifest.xml of the bundle")]
    TooLong(u64),
    /// It is no text.
    #[error("is no UTF-8 text; give the file NAME.manifest.xml of the bundle")]
    NotText,
    /// It is no XML, or such as no manifest has.
    #[error("is no usable XML: {0}")]
    Xml(String),
    /// An element is not there.
    #[error("lacks the element <{0}>")]
    Missing(&'static str),
    /// An element is there more than once.
    #[error("has the element <{0}> more than once")]
    Repeated(&'static str),
    /// A value that cannot be.
    #[error("says <{element}> {value:?}: {limit}")]
    Value {
        /// The element.
        element: &'static str,
        /// What it says.
        value: String,
        /// What it could say.
        limit: &'static str,
    },
}

/// What an image is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A disk to start machines from.
    #[default]
    Machine,
    /// A kernel.
    Kernel,
    /// An initial RAM disk.
    Ramdisk,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "machine",
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "machine" => Ok(Self::Machine),
            "kernel" => Ok(Self::Kernel),
            "ramdisk" => Ok(Self::Ramdisk),
            other => Err(format!("image type {other:?} is not known; known are machine, kernel and ramdisk")),
        }
    }
}

/// A line of the block device mapping.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceMapping {
    /// `ami`, `root`, `swap` or `ephemeralN`.
    pub virtual_name: String,
    /// The name of the device, as `sda1` or `/dev/sda1`.
    pub device: String,
}

/// The program that made a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bundler {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its release.
    pub release: String,
}

/// What a bundle says of its image.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Description {
    /// The name of the image; files are called after it.
    pub name: String,
    /// The account of who has made it: 12 digits.
    pub user: String,
    /// What it is for.
    pub kind: Kind,
    /// `i386` or `x86_64`; others are possible.
    pub architecture: String,
    /// Which devices machines have.
    pub block_device_mapping: Vec<DeviceMapping>,
    /// The image of the kernel (`aki-...`), if one is named.
    pub kernel_id: Option<String>,
    /// The image of the initial RAM disk (`ari-...`), if one is named.
    pub ramdisk_id: Option<String>,
    /// Product codes.
    pub product_codes: Vec<String>,
}

/// A part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub name: String,
    pub digest: [u8; 20],
}

/// A key and the initialization vector that goes with it, each encrypted for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SealedKey {
    pub key: Vec<u8>,
    pub iv: Vec<u8>,
}

/// Sizes, digests and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bytes of the image, and of all parts.
    pub size: u64,
    pub bundled_size: u64,
    /// Of the tar archive.
    pub digest: [u8; 20],
    pub for_ec2: SealedKey,
    pub for_user: SealedKey,
    pub parts: Vec<Part>,
}

/// A manifest that was read.
#[derive(Debug)]
pub(super) struct Manifest {
    pub bundler: Bundler,
    pub description: Description,
    pub contents: Contents,
    /// `None`: it says that it is not signed.
    pub signature: Option<Vec<u8>>,
    /// What may have been signed.
    pub signed: Vec<Vec<u8>>,
}

fn wrong(element: &'static str, value: &str, limit: &'static str) -> ManifestError {
    ManifestError::Value { element, value: value.chars().take(100).collect(), limit }
}

/// The text of an element that must be there.
fn field(parent: &Element, name: &'static str) -> Result<String, ManifestError> {
    checked(name, parent.one(name)?)
}

fn checked(name: &'static str, element: &Element) -> Result<String, ManifestError> {
    let text = element.content();
    if text.is_empty() || text.len() > MAX_FIELD || text.chars().any(char::is_control) {
        return Err(wrong(name, text, "possible are 1 to 1024 characters on one line"));
    }
    Ok(text.to_owned())
}

/// The text of an element that may be left out, or be empty.
fn optional(parent: &Element, name: &'static str) -> Result<Option<String>, ManifestError> {
    match parent.optional(name)? {
        Some(element) if !element.content().is_empty() => checked(name, element).map(Some),
        _ => Ok(None),
    }
}

fn number(parent: &Element, name: &'static str, most: u64) -> Result<u64, ManifestError> {
    let text = parent.one(name)?.content();
    let value = text.parse().ok().filter(|value| *value > 0 && *value <= most);
    value.ok_or_else(|| wrong(name, text, "it is no size of a bundle, which holds images of up to 10 GiB"))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes out of hexadecimal digits.
pub(super) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

fn bytes(parent: &Element, name: &'static str) -> Result<Vec<u8>, ManifestError> {
    let text = parent.one(name)?.content();
    unhex(text.as_bytes())
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| wrong(name, text, "hexadecimal digits are needed"))
}

fn digest(parent: &Element) -> Result<[u8; 20], ManifestError> {
    let element = parent.one("digest")?;
    let algorithm = element.attribute("algorithm").unwrap_or_default();
    if !algorithm.eq_ignore_ascii_case("SHA1") {
        return Err(wrong("digest", algorithm, "only the algorithm SHA1 is known"));
    }
    let found = bytes(parent, "digest")?;
    found.try_into().map_err(|_| wrong("digest", element.content(), "a SHA1 digest has 40 digits"))
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let root = Element::parse(text)?;
        if root.name != "manifest" {
            return Err(ManifestError::Missing("manifest"));
        }
        let version = field(&root, "version")?;
        if version != VERSION {
            return Err(wrong("version", &version, "only 2007-10-10 is known"));
        }
        let machine = root.one("machine_configuration")?;
        let image = root.one("image")?;
        let signature = match root.optional("signature")?.map(Element::content) {
            None | Some("" | UNSIGNED) => None,
            Some(_) => Some(bytes(&root, "signature")?),
        };
        let signed = [machine, image].map(|element| text.get(element.place.clone()).unwrap_or_default());
        let signed = signed.concat();
        // Whoever lays out a manifest for reading does it after it was signed.
        let close = without_layout(&signed).into_bytes();
        Ok(Self {
            bundler: bundler(&root)?,
            description: description(machine, image)?,
            contents: contents(image)?,
            signature,
            signed: vec![signed.into_bytes(), close],
        })
    }

    /// The text of a manifest that `sign` signs.
    ///
    /// # Errors
    /// What `sign` says.
    pub fn write<E>(
        bundler: &Bundler,
        description: &Description,
        contents: &Contents,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let (mut machine, mut image) = (Writer::default(), Writer::default());
        write_machine(&mut machine, description);
        write_image(&mut image, description, contents);
        let signed = machine.0 + &image.0;
        let signature = hex(&sign(signed.as_bytes())?);
        let mut whole = Writer("<?xml version=\"1.0\"?>\n".to_owned());
        whole.element("manifest", &[], |inner| {
            inner.text("version", &[], VERSION);
            inner.element("bundler", &[], |inner| {
                inner.text("name", &[], &bundler.name);
                inner.text("version", &[], &bundler.version);
                inner.text("release", &[], &bundler.release);
            });
            inner.0.push_str(&signed);
            inner.text("signature", &[], &signature);
        });
        whole.0.push('\n');
        Ok(whole.0)
    }
}

/// The text without white space between two tags.
fn without_layout(text: &str) -> String {
    let mut pieces = text.split('>').peekable();
    let mut close = String::with_capacity(text.len());
    while let Some(piece) = pieces.next() {
        let is_layout = piece.split_once('<').is_some_and(|(before, _)| before.trim().is_empty());
        close.push_str(if is_layout { piece.trim_start() } else { piece });
        if pieces.peek().is_some() {
            close.push('>');
        }
    }
    close
}

fn bundler(root: &Element) -> Result<Bundler, ManifestError> {
    let Some(bundler) = root.optional("bundler")? else { return Ok(Bundler::default()) };
    let text = |name| Ok::<_, ManifestError>(optional(bundler, name)?.unwrap_or_default());
    Ok(Bundler { name: text("name")?, version: text("version")?, release: text("release")? })
}

fn description(machine: &Element, image: &Element) -> Result<Description, ManifestError> {
    let kind = match image.optional("type")?.map(Element::content) {
        None => Kind::Machine,
        Some(text) => text.parse().map_err(|_| wrong("type", text, "known are machine, kernel and ramdisk"))?,
    };
    // One program writes the first and reads the second.
    let mut block_device_mapping = Vec::new();
    for (list, item) in [("block_device_mapping", "mapping"), ("block_device_mappings", "block_device_mapping")] {
        for mapping in machine.optional(list)?.iter().flat_map(|list| list.all(item)) {
            let (virtual_name, device) = (field(mapping, "virtual")?, field(mapping, "device")?);
            block_device_mapping.push(DeviceMapping { virtual_name, device });
        }
    }
    let codes = machine.optional("product_codes")?;
    let codes = codes.iter().flat_map(|list| list.all("product_code"));
    Ok(Description {
        name: field(image, "name")?,
        user: field(image, "user")?,
        kind,
        architecture: field(machine, "architecture")?,
        block_device_mapping,
        kernel_id: optional(machine, "kernel_id")?,
        ramdisk_id: optional(machine, "ramdisk_id")?,
        product_codes: codes.map(|code| checked("product_code", code)).collect::<Result<_, _>>()?,
    })
}

fn contents(image: &Element) -> Result<Contents, ManifestError> {
    let sealed = |key: &'static str, iv: &'static str| {
        let algorithm = image.one(key)?.attribute("algorithm").unwrap_or_default();
        if algorithm != "AES-128-CBC" {
            return Err(wrong(key, algorithm, "only the algorithm AES-128-CBC is known"));
        }
        Ok(SealedKey { key: bytes(image, key)?, iv: bytes(image, iv)? })
    };
    let list = image.one("parts")?;
    let mut parts: Vec<(usize, Part)> = Vec::new();
    for part in list.all("part") {
        let index = part.attribute("index").unwrap_or_default();
        let number = index.parse().map_err(|_| wrong("part", index, "its index is no number"))?;
        let text = part.one("filename")?.content();
        let name =
            checked("filename", part.one("filename")?).map_err(|_| wrong("filename", text, "this is no name"))?;
        parts.push((number, Part { name, digest: digest(part)? }));
    }
    parts.sort_by_key(|(number, _)| *number);
    let count = list.attribute("count").unwrap_or_default();
    if count.parse() != Ok(parts.len()) || parts.is_empty() || parts.len() > MAX_PARTS {
        return Err(wrong("parts", count, "possible are 1 to 10240, as many as are listed"));
    }
    if parts.iter().zip(0..).any(|((number, _), expected)| *number != expected) {
        return Err(wrong("parts", count, "their indexes must be 0, 1, 2 and so on, each once"));
    }
    Ok(Contents {
        size: number(image, "size", MAX_IMAGE)?,
        bundled_size: number(image, "bundled_size", MAX_IMAGE + MAX_ADDED)?,
        digest: digest(image)?,
        for_ec2: sealed("ec2_encrypted_key", "ec2_encrypted_iv")?,
        for_user: sealed("user_encrypted_key", "user_encrypted_iv")?,
        parts: parts.into_iter().map(|(_, part)| part).collect(),
    })
}

fn write_machine(writer: &mut Writer, description: &Description) {
    writer.element("machine_configuration", &[], |inner| {
        inner.text("architecture", &[], &description.architecture);
        if !description.block_device_mapping.is_empty() {
            inner.element("block_device_mapping", &[], |inner| {
                for mapping in &description.block_device_mapping {
                    inner.element("mapping", &[], |inner| {
                        inner.text("virtual", &[], &mapping.virtual_name);
                        inner.text("device", &[], &mapping.device);
                    });
                }
            });
        }
        if !description.product_codes.is_empty() {
            inner.element("product_codes", &[], |inner| {
                description.product_codes.iter().for_each(|code| inner.text("product_code", &[], code));
            });
        }
        let images = [("kernel_id", &description.kernel_id), ("ramdisk_id", &description.ramdisk_id)];
        for (name, id) in images.into_iter().filter_map(|(name, id)| Some((name, id.as_ref()?))) {
            inner.text(name, &[], id);
        }
    });
}

fn write_image(writer: &mut Writer, description: &Description, contents: &Contents) {
    let sha1 = [("algorithm", "SHA1")];
    let aes = [("algorithm", "AES-128-CBC")];
    writer.element("image", &[], |inner| {
        inner.text("name", &[], &description.name);
        inner.text("user", &[], &description.user);
        inner.text("type", &[], &description.kind.to_string());
        inner.text("digest", &sha1, &hex(&contents.digest));
        inner.text("size", &[], &contents.size.to_string());
        inner.text("bundled_size", &[], &contents.bundled_size.to_string());
        inner.text("ec2_encrypted_key", &aes, &hex(&contents.for_ec2.key));
        inner.text("user_encrypted_key", &aes, &hex(&contents.for_user.key));
        inner.text("ec2_encrypted_iv", &[], &hex(&contents.for_ec2.iv));
        inner.text("user_encrypted_iv", &[], &hex(&contents.for_user.iv));
        inner.element("parts", &[("count", &contents.parts.len().to_string())], |inner| {
            for (index, part) in contents.parts.iter().enumerate() {
                inner.element("part", &[("index", &index.to_string())], |inner| {
                    inner.text("filename", &[], &part.name);
                    inner.text("digest", &sha1, &hex(&part.digest));
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_what_stands_between_tags() {
        assert_eq!(without_layout("<a>\n  <b>x y</b>\n\t<c/> </a>"), "<a><b>x y</b><c/></a>");
        assert_eq!(without_layout("<a> x <b> </b></a>"), "<a> x <b></b></a>");
        assert_eq!(without_layout("no tag"), "no tag");
    }

    #[test]
    fn digits_come_in_pairs() {
        assert_eq!(unhex(b"00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(hex(&[0, 255, 161]), "00ffa1");
        for bad in ["0", "0g", "\u{e4}", " 00"] {
            assert_eq!(unhex(bad.as_bytes()), None);
        }
    }
}
