//! Runs a GRUB 2 script as far as the menu goes.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Item;
use super::script::{self, Block, Part, Statement, Word};
use super::search::{By, Search};
use super::test_command;
use crate::image::boot::{
    Draft, EntryKind, Files, MAX_CONFIG, MAX_INITRDS, Source, bls, device_name, grubenv, too_many_initrds,
};
use crate::image::fs::Kind;
use crate::image::inspection::FileRef;

/// What a run may cost, in bytes of words expanded; a word and a command cost something, too, and a look at a file a lot.
const FUEL: u64 = 64 << 20;
const WORD_COST: u64 = 32;
const COMMAND_COST: u64 = 100;
const FILE_COST: u64 = 50_000;
/// The cost of a byte of a configuration file, whose parsed form takes far more memory than its text.
const TEXT_COST: u64 = 32;
/// Variables together, in bytes.
const MAX_VARIABLES: usize = 256 << 10;
/// A word after expansion, in bytes.
const MAX_WORD: usize = 64 << 10;
/// Functions, submenus and sourced files inside one another.
const MAX_NESTING: usize = 12;
/// Menu lines in all.
const MAX_ITEMS: usize = 512;

/// The state of GRUB while it reads its configuration.
pub(super) struct Machine<'a> {
    files: &'a mut dyn Files,
    variables: BTreeMap<String, String>,
    variables_size: usize,
    functions: BTreeMap<String, Rc<Block>>,
    file: (u32, String),
    items: Vec<Item>,
    item_count: usize,
    drafts: Vec<Draft>,
    fuel: u64,
    nesting: usize,
    status: bool,
    loaded: Loaded,
}

/// What the body of a menu entry loads.
#[derive(Debug, Clone, Default)]
struct Loaded {
    kernel: Option<FileRef>,
    initrds: Vec<FileRef>,
    cmdline: String,
    problem: Option<String>,
}

impl<'a> Machine<'a> {
    /// GRUB as it is when it starts from `prefix` of `partition`.
    pub fn new(files: &'a mut dyn Files, partition: u32, prefix: &str) -> Self {
        let mut machine = Self {
            files,
            variables: BTreeMap::new(),
            variables_size: 0,
            functions: BTreeMap::new(),
            file: (partition, String::new()),
            items: Vec::new(),
            item_count: 0,
            drafts: Vec::new(),
            fuel: FUEL,
            nesting: 0,
            status: true,
            loaded: Loaded::default(),
        };
        let root = device_name(partition);
        machine.set("prefix", &format!("({root}){prefix}"));
        machine.set("root", &root);
        machine.set("grub_platform", "pc");
        machine.set("grub_cpu", "i386");
        for feature in
            ["menuentry_id", "platform_search_hint", "default_font_path", "all_video_module", "timeout_style"]
        {
            machine.set(&format!("feature_{feature}"), "y");
        }
        machine
    }

    /// Runs a configuration file.
    pub fn run_file(&mut self, partition: u32, path: &str, text: &str) {
        let before = std::mem::replace(&mut self.file, (partition, path.to_owned()));
        self.burn(length(text).saturating_mul(TEXT_COST));
        if self.fuel > 0 {
            self.run(&script::parse(text));
        }
        self.file = before;
    }

    /// A variable's value, empty where it is not set.
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// What the script led to.
    pub fn finish(self) -> (Vec<Draft>, Vec<Item>) {
        (self.drafts, self.items)
    }

    fn burn(&mut self, cost: u64) {
        self.fuel = self.fuel.saturating_sub(cost);
    }

    fn set(&mut self, name: &str, value: &str) {
        let old = self.variables.get(name).map_or(0, |v| v.len() + name.len());
        let size = self.variables_size - old + name.len() + value.len();
        if size <= MAX_VARIABLES {
            self.variables_size = size;
            self.variables.insert(name.to_owned(), value.to_owned());
        }
    }

    fn run(&mut self, block: &[Statement]) {
        if self.nesting >= MAX_NESTING {
            return;
        }
        self.nesting += 1;
        for statement in block {
            if self.fuel == 0 {
                break;
            }
            self.burn(COMMAND_COST);
            self.statement(statement);
        }
        self.nesting -= 1;
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Command { words, .. } => {
                let words = self.expand(words);
                self.command(&words);
            }
            Statement::If { arms, otherwise } => {
                for (condition, body) in arms {
                    self.status = false;
                    self.run(condition);
                    if self.status {
                        return self.run(body);
                    }
                }
                self.run(otherwise);
            }
            Statement::Function { name, body } => {
                self.functions.insert(name.clone(), Rc::clone(body));
            }
            Statement::For { name, words, body } => {
                for value in self.expand(words) {
                    if self.fuel == 0 {
                        break;
                    }
                    self.burn(COMMAND_COST);
                    self.set(name, &value);
                    self.run(body);
                }
            }
            Statement::Menu { submenu, words, body, line } => self.menu(*submenu, words, body, *line),
            Statement::Loop => self.status = false,
        }
    }

    /// Expands variables; an unquoted one may become several words, or none.
    fn expand(&mut self, words: &[Word]) -> Vec<String> {
        let mut out = Vec::new();
        for word in words {
            self.expand_word(word, &mut out);
            if self.fuel == 0 {
                return Vec::new();
            }
        }
        out
    }

    fn expand_word(&mut self, word: &Word, out: &mut Vec<String>) {
        let mut text = String::new();
        let mut present = word.is_empty() || word.iter().any(|p| !matches!(p, Part::Variable { quoted: false, .. }));
        for part in word {
            match part {
                Part::Text(t) => text.push_str(t),
                Part::Variable { name, quoted: true } => text.push_str(self.variable(name)),
                Part::Variable { name, quoted: false } => {
                    let value = self.variable(name).to_owned();
                    self.burn(length(&value));
                    let mut pieces = value.split_ascii_whitespace();
                    text.push_str(pieces.next().unwrap_or_default());
                    for piece in pieces {
                        self.burn(length(&text) + WORD_COST);
                        out.push(std::mem::replace(&mut text, piece.to_owned()));
                    }
                    present |= !text.is_empty();
                }
            }
            if text.len() > MAX_WORD {
                self.fuel = 0;
            }
            if self.fuel == 0 {
                return;
            }
        }
        self.burn(length(&text) + WORD_COST);
        if present || !text.is_empty() {
            out.push(text);
        }
    }

    fn command(&mut self, words: &[String]) {
        let Some((name, arguments)) = words.split_first() else { return };
        self.status = true;
        match name.as_str() {
            "[" | "test" => {
                let expression = arguments.strip_suffix(&["]".to_owned()]).unwrap_or(arguments);
                self.status = self.test(expression);
            }
            "set" => arguments.iter().for_each(|a| self.assign(a)),
            "unset" => arguments.iter().for_each(|a| self.set(a, "")),
            "search" => self.status = self.search(Search::parse(arguments)),
            "search.fs_uuid" => self.status = self.search(Search::short(By::Uuid, arguments)),
            "search.fs_label" => self.status = self.search(Search::short(By::Label, arguments)),
            "search.file" => self.status = self.search(Search::short(By::File, arguments)),
            "load_env" => self.load_env(arguments),
            "source" | "." | "configfile" | "normal" => self.source(arguments),
            "linux" | "linux16" | "linuxefi" => self.linux(arguments),
            "initrd" | "initrd16" | "initrdefi" => {
                let files: Vec<_> = arguments.iter().take(MAX_INITRDS).filter_map(|a| self.locate(a)).collect();
                self.loaded.initrds = files;
                self.loaded.problem = too_many_initrds(arguments.len()).or(self.loaded.problem.take());
            }
            "multiboot" | "multiboot2" | "xen_hypervisor" | "chainloader" => {
                self.loaded.problem = Some(format!("it starts {name}, not a Linux kernel"));
            }
            "blscfg" => self.blscfg(),
            "true" | "export" | "insmod" | "echo" | "save_env" | "terminal_output" | "terminal_input" | "serial"
            | "terminal" => {}
            "false" | "return" | "break" | "continue" => self.status = false,
            other => match self.functions.get(other).cloned() {
                Some(body) => self.run(&body),
                None if other.contains('=') && !other.starts_with('=') => self.assign(other),
                // Fonts, videos, keys: as though it had failed.
                None => self.status = false,
            },
        }
    }

    fn assign(&mut self, assignment: &str) {
        if let Some((name, value)) = assignment.split_once('=') {
            self.set(name, value);
        }
    }

    fn test(&mut self, expression: &[String]) -> bool {
        let mut asked = 0;
        let root = self.variable("root").to_owned();
        let files = &mut *self.files;
        let fuel = self.fuel;
        let truth = test_command::evaluate(expression, &mut |operator, path| {
            asked += FILE_COST;
            if asked > fuel {
                return false;
            }
            let Some(file) = locate(files, &root, path) else { return false };
            match (operator, files.kind(&file)) {
                ("-e", Some(_)) | ("-f", Some(Kind::File)) | ("-d", Some(Kind::Directory)) => true,
                ("-s", Some(Kind::File)) => files.size(&file).is_some_and(|size| size > 0),
                _ => false,
            }
        });
        self.burn(asked);
        truth
    }

    /// The file that a path means: on the device in parentheses, else on `$root`.
    fn locate(&mut self, path: &str) -> Option<FileRef> {
        let root = self.variable("root").to_owned();
        locate(self.files, &root, path)
    }

    /// Looks for a partition, and sets the variable to it where it is there.
    fn search(&mut self, wanted: Option<Search>) -> bool {
        self.burn(FILE_COST);
        let Some(Search { by, name, variable }) = wanted else { return false };
        let found = match by {
            By::Uuid => self.files.by_uuid(&name),
            By::Label => self.files.by_label(&name),
            By::File => self.files.by_file(&name),
        };
        let Some(partition) = found else { return false };
        if let Some(variable) = variable {
            self.set(&variable, &device_name(partition));
        }
        true
    }

    fn load_env(&mut self, arguments: &[String]) {
        let default = format!("{}/grubenv", self.variable("prefix"));
        let mut path = default;
        let mut wanted = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "-f" | "--file" => path = arguments.next().cloned().unwrap_or_default(),
                other => match other.strip_prefix("--file=") {
                    Some(file) => file.clone_into(&mut path),
                    None if other.starts_with('-') => {}
                    None => wanted.push(other.to_owned()),
                },
            }
        }
        self.burn(FILE_COST);
        let text = self.locate(&path).and_then(|f| self.files.read(f.partition, &f.path, MAX_CONFIG));
        let Some(text) = text else {
            self.status = false;
            return;
        };
        for (name, value) in grubenv::parse(&String::from_utf8_lossy(&text)) {
            if wanted.is_empty() || wanted.contains(&name) {
                self.set(&name, &value);
            }
        }
    }

    fn source(&mut self, arguments: &[String]) {
        self.burn(FILE_COST);
        let file = arguments.first().and_then(|path| self.locate(path));
        let text = file.as_ref().and_then(|f| self.files.read(f.partition, &f.path, MAX_CONFIG));
        match (file, text) {
            (Some(file), Some(text)) => self.run_file(file.partition, &file.path, &String::from_utf8_lossy(&text)),
            _ => self.status = false,
        }
    }

    fn linux(&mut self, arguments: &[String]) {
        let Some((path, arguments)) = arguments.split_first() else { return };
        self.loaded.kernel = self.locate(path);
        if self.loaded.kernel.is_none() {
            self.loaded.kernel = Some(FileRef { partition: 0, path: path.clone() });
            self.loaded.problem = Some(format!("the device of {path} is not on this disk"));
        }
        self.loaded.initrds.clear();
        self.loaded.cmdline = arguments.iter().map(|a| requoted(a)).collect::<Vec<_>>().join(" ");
    }

    fn menu(&mut self, submenu: bool, words: &[Word], body: &Block, line: u32) {
        self.item_count += 1;
        if self.item_count > MAX_ITEMS {
            self.fuel = 0;
            return;
        }
        let (title, id) = title_and_id(&self.expand(words));
        let mut item = Item { title, id, draft: None, children: Vec::new() };
        let variables = (self.variables.clone(), self.variables_size);
        self.burn(u64::try_from(self.variables_size).unwrap_or(u64::MAX));
        if submenu {
            let outer = std::mem::take(&mut self.items);
            self.run(body);
            item.children = std::mem::replace(&mut self.items, outer);
        } else {
            item.draft = self.entry(&item, body, line);
        }
        (self.variables, self.variables_size) = variables;
        self.items.push(item);
    }

    /// Runs the body of an entry as GRUB would when it is chosen.
    fn entry(&mut self, item: &Item, body: &Block, line: u32) -> Option<usize> {
        let before = (self.variables.clone(), self.variables_size);
        let mut loaded = self.load(body);
        // Ubuntu's images first try without an initrd and, when that panics, with it: `initrdfail` is then 1.
        let retry = if loaded.initrds.is_empty() && loaded.kernel.is_some() {
            (self.variables, self.variables_size) = before;
            self.set("initrdfail", "1");
            Some(self.load(body)).filter(|retry| !retry.initrds.is_empty())
        } else {
            None
        };
        let draft = self.push_draft(item, &mut loaded, line)?;
        if let Some(mut retry) = retry {
            let titled = Item { title: format!("{} (with initrd)", item.title), ..item.clone() };
            let retry = self.push_draft(&titled, &mut retry, line);
            if let Some(first) = self.drafts.get_mut(draft) {
                first.retry = retry;
            }
        }
        Some(draft)
    }

    fn load(&mut self, body: &Block) -> Loaded {
        self.loaded = Loaded::default();
        self.burn(u64::try_from(self.variables_size).unwrap_or(u64::MAX));
        self.run(body);
        std::mem::take(&mut self.loaded)
    }

    fn push_draft(&mut self, item: &Item, loaded: &mut Loaded, line: u32) -> Option<usize> {
        let kernel = loaded.kernel.take()?;
        self.drafts.push(Draft {
            title: item.title.clone(),
            id: item.id.clone(),
            kind: EntryKind::GrubCfg,
            source: Source { partition: self.file.0, path: self.file.1.clone(), line },
            kernel,
            initrds: std::mem::take(&mut loaded.initrds),
            cmdline: std::mem::take(&mut loaded.cmdline),
            problem: loaded.problem.take(),
            retry: None,
        });
        Some(self.drafts.len() - 1)
    }

    /// Fedora's `blscfg`: the entries of the Boot Loader Specification become menu lines.
    fn blscfg(&mut self) {
        self.burn(FILE_COST);
        // Fedora sets `boot` to the device of /boot; `root` is the same in older configurations.
        for device in [self.variable("boot").to_owned(), self.variable("root").to_owned()] {
            if let Some(partition) = self.files.device(&device)
                && self.bls_directory(partition)
            {
                return;
            }
        }
    }

    fn bls_directory(&mut self, partition: u32) -> bool {
        let given = self.variable("blsdir").to_owned();
        let directories = [given.as_str(), "/loader/entries", "/boot/loader/entries"];
        for directory in directories.into_iter().filter(|d| !d.is_empty()) {
            self.burn(FILE_COST);
            if self.fuel == 0 {
                break;
            }
            let entries = bls::entries(self.files, partition, directory, &self.variables);
            for draft in entries {
                self.item_count += 1;
                // Each stands for a file that was read.
                self.burn(FILE_COST);
                if self.item_count > MAX_ITEMS {
                    self.fuel = 0;
                    break;
                }
                let (title, id) = (draft.title.clone(), draft.id.clone());
                self.items.push(Item { title, id, draft: Some(self.drafts.len()), children: Vec::new() });
                self.drafts.push(draft);
            }
            if !self.items.is_empty() {
                return true;
            }
        }
        false
    }
}

/// Length in bytes.
fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// The file that a path means: on the device in parentheses, else on `root`.
fn locate(files: &mut dyn Files, root: &str, path: &str) -> Option<FileRef> {
    let (device, path) = match path.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?,
        None => (root, path),
    };
    let device = if device.is_empty() { root } else { device };
    let partition = files.device(device)?;
    path.starts_with('/').then(|| FileRef { partition, path: path.to_owned() })
}

/// The title and id in the arguments of `menuentry` or `submenu`.
fn title_and_id(words: &[String]) -> (String, Option<String>) {
    let mut title = None;
    let mut id = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--id" => id = words.next().cloned(),
            "--class" | "--users" | "--hotkey" | "--source" => {
                words.next();
            }
            other => match other.strip_prefix("--id=") {
                Some(value) => id = Some(value.to_owned()),
                None if other.starts_with("--") => {}
                None if title.is_none() => title = Some(other.to_owned()),
                // Where `$menuentry_id_option` is empty the id stands alone.
                None => {}
            },
        }
    }
    (title.unwrap_or_default(), id)
}

/// A word on the kernel's command line, as GRUB hands it over: quoted where it holds a blank.
fn requoted(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        if matches!(c, '\\' | '\'' | '"') {
            out.push('\\');
        }
        out.push(c);
    }
    if word.contains(' ') { format!("\"{out}\"") } else { out }
}
