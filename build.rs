//! Makes the types of EC2's requests and answers out of `resources/ec2/model.json` (see `tools/ec2-model`).
//!
//! For each structure there is a struct of the same name, its members in snake case: lists are `Vec`s, everything else is an
//! `Option`. Those in requests can be read from parameters, those in answers written as XML. Each action is a type that
//! names its request and its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::{env, fs, path::Path};

use serde::Deserialize;

const MODEL: &str = "resources/ec2/model.json";

/// Lists that EC2 writes when they are empty too; clients count on them.
const ALWAYS: [(&str, &str); 19] = [
    ("Image", "BlockDeviceMappings"),
    ("Instance", "BlockDeviceMappings"),
    ("Instance", "NetworkInterfaces"),
    ("Instance", "ProductCodes"),
    ("Instance", "SecurityGroups"),
    ("IpPermission", "IpRanges"),
    ("IpPermission", "Ipv6Ranges"),
    ("IpPermission", "PrefixListIds"),
    ("IpPermission", "UserIdGroupPairs"),
    ("NetworkInterface", "Groups"),
    ("NetworkInterface", "Ipv6Addresses"),
    ("NetworkInterface", "PrivateIpAddresses"),
    ("NetworkInterface", "TagSet"),
    ("Reservation", "Groups"),
    ("Reservation", "Instances"),
    ("SecurityGroup", "IpPermissions"),
    ("SecurityGroup", "IpPermissionsEgress"),
    ("Volume", "Attachments"),
    ("VolumeStatusItem", "Events"),
];

#[derive(Deserialize)]
struct Model {
    /// Request and answer of each.
    operations: BTreeMap<String, (String, Option<String>)>,
    requests: BTreeSet<String>,
    answers: BTreeSet<String>,
    /// Of each member: its name in requests, its name in answers, its type.
    structures: BTreeMap<String, BTreeMap<String, (String, String, Type)>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Type {
    /// A scalar or a structure.
    One(String),
    /// What it says that it is, what it is of, the name of an item in answers.
    List(IsList, Box<Type>, String),
}

#[derive(Deserialize)]
enum IsList {
    #[serde(rename = "list")]
    List,
}

impl Type {
    fn rust(&self) -> String {
        match self {
            Self::List(IsList::List, of, _) => format!("Vec<{}>", of.rust()),
            Self::One(name) => match name.as_str() {
                "string" => "String",
                "integer" => "i64",
                "double" => "f64",
                "boolean" => "bool",
                "timestamp" => "Timestamp",
                "blob" => "Blob",
                structure => structure,
            }
            .into(),
        }
    }

    fn field(&self) -> String {
        match self {
            Self::List(..) => self.rust(),
            Self::One(_) => format!("Option<{}>", self.rust()),
        }
    }
}

fn main() {
    println!("cargo::rerun-if-changed={MODEL}");
    println!("cargo::rerun-if-changed=build.rs");
    let text = fs::read_to_string(MODEL).expect("the model of EC2's API");
    let model: Model = serde_json::from_str(&text).expect("the model of EC2's API is JSON of its form");
    let mut code = String::new();
    for (name, members) in &model.structures {
        structure(&mut code, name, members).unwrap();
        if model.requests.contains(name) {
            request(&mut code, name, members).unwrap();
        }
        if model.answers.contains(name) {
            answer(&mut code, name, members).unwrap();
        }
    }
    for (name, (input, output)) in &model.operations {
        operation(&mut code, name, input, output.as_deref()).unwrap();
    }
    let out = env::var_os("OUT_DIR").expect("cargo says where");
    fs::write(Path::new(&out).join("ec2.rs"), code).expect("room for what is made");
}

/// `KmsKeyId` becomes `kms_key_id`, `IPs` `ips`, `VCpuInfo` `v_cpu_info`, `Ipv6Address` `ipv6_address`.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before_is_lower = at > 0 && !letters[at - 1].is_uppercase();
        let next_is_lower = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        let last_plural = letters.get(at + 1) == Some(&'s') && at + 2 == letters.len();
        if letter.is_uppercase() && at > 0 && (before_is_lower || next_is_lower && !last_plural) {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    if matches!(snake.as_str(), "type" | "return" | "ref" | "match" | "use") { format!("r#{snake}") } else { snake }
}

type Members = BTreeMap<String, (String, String, Type)>;

fn structure(code: &mut String, name: &str, members: &Members) -> std::fmt::Result {
    writeln!(code, "/// EC2's `{name}`.\n#[derive(Clone, Debug, Default, PartialEq)]\npub struct {name} {{")?;
    for (member, (.., kind)) in members {
        writeln!(code, "    /// `{member}`.\n    pub {}: {},", snake(member), kind.field())?;
    }
    writeln!(code, "}}")
}

fn request(code: &mut String, name: &str, members: &Members) -> std::fmt::Result {
    writeln!(code, "impl FromParameters for {name} {{")?;
    writeln!(code, "    fn from_fields(fields: &mut Fields) -> Result<Self, WireError> {{\n        Ok(Self {{")?;
    for (member, (wire, _, kind)) in members {
        let read = if matches!(kind, Type::List(..)) { "list" } else { "one" };
        writeln!(code, "            {}: fields.{read}(\"{wire}\")?,", snake(member))?;
    }
    writeln!(code, "        }})\n    }}\n}}")?;
    let nothing = if members.is_empty() { "_" } else { "" };
    writeln!(
        code,
        "impl Left for {name} {{\n    fn left(&self, {nothing}path: &str) -> Option<String> {{\n        None"
    )?;
    for (member, (wire, ..)) in members {
        writeln!(code, "            .or_else(|| self.{}.left(&join(path, \"{wire}\")))", snake(member))?;
    }
    writeln!(code, "    }}\n}}")
}

fn answer(code: &mut String, name: &str, members: &Members) -> std::fmt::Result {
    let nothing = if members.is_empty() { "_" } else { "" };
    writeln!(code, "impl ToXml for {name} {{\n    fn write(&self, {nothing}xml: &mut Xml) {{")?;
    for (member, (_, wire, kind)) in members {
        let field = snake(member);
        match kind {
            Type::List(_, _, item) => {
                let list = if ALWAYS.contains(&(name, member)) { "list_always" } else { "list" };
                writeln!(code, "        xml.{list}(\"{wire}\", \"{item}\", &self.{field});")?;
            }
            Type::One(_) => writeln!(code, "        xml.member(\"{wire}\", self.{field}.as_ref());")?,
        }
    }
    writeln!(code, "    }}\n}}")
}

fn operation(code: &mut String, name: &str, input: &str, output: Option<&str>) -> std::fmt::Result {
    let output = output.unwrap_or("Done");
    writeln!(code, "/// The action of this name.\n#[derive(Clone, Copy, Debug)]\npub struct {name}Action;")?;
    writeln!(code, "impl Action for {name}Action {{\n    const NAME: &'static str = \"{name}\";")?;
    writeln!(code, "    type Request = {input};\n    type Answer = {output};")?;
    writeln!(code, "    fn take_dry_run(request: &mut {input}) -> bool {{")?;
    writeln!(code, "        request.dry_run.take() == Some(true)\n    }}\n}}")
}
