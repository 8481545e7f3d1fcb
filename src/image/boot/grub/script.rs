//! The syntax of GRUB 2 scripts (GNU GRUB manual, "Writing full configuration files directly"): quoting, variables,
//! `if`, functions, menus and loops, as far as to know where each begins and ends.

use std::rc::Rc;

/// Nested blocks that are followed; `grub-mkconfig` nests four deep.
const MAX_DEPTH: usize = 32;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    /// `$name` or `${name}`.
    Variable {
        name: String,
        /// In double quotes: the value stays one word.
        quoted: bool,
    },
}

/// A word of a command; an empty list of parts is the empty word `""`.
pub(super) type Word = Vec<Part>;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    Command {
        words: Vec<Word>,
        line: u32,
    },
    If {
        arms: Vec<(Block, Block)>,
        otherwise: Block,
    },
    Menu {
        submenu: bool,
        words: Vec<Word>,
        body: Block,
        line: u32,
    },
    Function {
        name: String,
        /// Shared with whoever runs the statement: a loop may do so often.
        body: Rc<Block>,
    },
    For {
        name: String,
        words: Vec<Word>,
        body: Block,
    },
    /// `while` and `until`: their end depends on what happens at boot, so they are not run.
    Loop,
}

pub(super) type Block = Vec<Statement>;

/// Parses a script. What is not closed at the end counts as closed there, and a stray word as a command, so that one
/// slip in a file does not hide the entries before it.
pub(super) fn parse(text: &str) -> Block {
    let tokens = tokens(text);
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let mut block = Vec::new();
    while parser.at < tokens.len() {
        block.append(&mut parser.block(&[], 0));
        // A stray `fi`, `}` and the like.
        parser.at += 1;
    }
    block
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word; `bare` where it has no quotes or escapes and so may be a keyword.
    Word { word: Word, bare: bool, line: u32 },
    /// The end of a command: a line break or a semicolon.
    End,
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: u32,
    tokens: Vec<Token>,
    word: Word,
    text: String,
    started: bool,
    bare: bool,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        line: 1,
        tokens: Vec::new(),
        word: Vec::new(),
        text: String::new(),
        started: false,
        bare: true,
    };
    while let Some(c) = lexer.chars.next() {
        lexer.character(c);
    }
    lexer.finish_word();
    lexer.tokens.push(Token::End);
    lexer.tokens
}

impl Lexer<'_> {
    fn character(&mut self, c: char) {
        match c {
            '\n' | ';' => {
                self.finish_word();
                self.tokens.push(Token::End);
                self.line = self.line.saturating_add(u32::from(c == '\n'));
            }
            ' ' | '\t' | '\r' => self.finish_word(),
            '#' if !self.started => while self.chars.next_if(|&c| c != '\n').is_some() {},
            '\'' => {
                self.quote();
                while let Some(c) = self.next_counted().filter(|&c| c != '\'') {
                    self.text.push(c);
                }
            }
            '"' => {
                self.quote();
                self.double_quoted();
            }
            '\\' => {
                if let Some(c) = self.next_counted().filter(|&c| c != '\n') {
                    self.quote();
                    self.text.push(c);
                }
            }
            '$' => self.variable(false),
            '{' | '}' if !self.started && self.chars.peek().is_none_or(|c| c.is_whitespace() || *c == ';') => {
                self.started = true;
                self.text.push(c);
                self.finish_word();
            }
            c => {
                self.started = true;
                self.text.push(c);
            }
        }
    }

    fn quote(&mut self) {
        self.started = true;
        self.bare = false;
    }

    fn next_counted(&mut self) -> Option<char> {
        let c = self.chars.next();
        self.line = self.line.saturating_add(u32::from(c == Some('\n')));
        c
    }

    fn double_quoted(&mut self) {
        while let Some(c) = self.next_counted() {
            match c {
                '"' => return,
                '$' => self.variable(true),
                '\\' => match self.next_counted() {
                    Some('\n') | None => {}
                    Some(c @ ('$' | '"' | '\\')) => self.text.push(c),
                    Some(c) => self.text.extend(['\\', c]),
                },
                c => self.text.push(c),
            }
        }
    }

    fn variable(&mut self, quoted: bool) {
        self.started = true;
        let mut name = String::new();
        if self.chars.next_if_eq(&'{').is_some() {
            while let Some(c) = self.chars.next_if(|&c| c != '}' && c != '\n') {
                name.push(c);
            }
            self.chars.next_if_eq(&'}');
        } else if let Some(c) = self.chars.next_if(|c| matches!(c, '?' | '@' | '#' | '*') || c.is_ascii_digit()) {
            name.push(c);
        } else {
            while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                name.push(c);
            }
        }
        if name.is_empty() {
            self.text.push('$');
            return;
        }
        self.finish_text();
        self.word.push(Part::Variable { name, quoted });
    }

    fn finish_text(&mut self) {
        if !self.text.is_empty() {
            self.word.push(Part::Text(std::mem::take(&mut self.text)));
        }
    }

    fn finish_word(&mut self) {
        self.finish_text();
        if self.started {
            let mut word = std::mem::take(&mut self.word);
            word.shrink_to_fit();
            self.tokens.push(Token::Word { word, bare: self.bare, line: self.line });
        }
        self.started = false;
        self.bare = true;
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    /// The keyword or other bare word that stands next.
    fn peek_bare(&self) -> Option<&str> {
        match self.tokens.get(self.at)? {
            Token::Word { word, bare: true, .. } => match word.as_slice() {
                [Part::Text(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    fn take_bare(&mut self, expected: &str) -> bool {
        let found = self.peek_bare() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn skip_ends(&mut self) {
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
    }

    /// The words up to the end of the command, or up to an opening brace where `brace` says so.
    fn words(&mut self, brace: bool) -> (Vec<Word>, u32) {
        let mut words = Vec::new();
        let mut first = 0;
        while let Some(Token::Word { word, line, .. }) = self.tokens.get(self.at) {
            if brace && self.peek_bare() == Some("{") || self.peek_bare() == Some("}") {
                break;
            }
            if words.is_empty() {
                first = *line;
            }
            words.push(word.clone());
            self.at += 1;
        }
        (words, first)
    }

    /// Statements up to one of the words in `until`, which is left standing, or up to the end.
    fn block(&mut self, until: &[&str], depth: usize) -> Block {
        const CLOSING: [&str; 7] = ["then", "elif", "else", "fi", "do", "done", "}"];
        let mut block = Vec::new();
        loop {
            self.skip_ends();
            if self.at >= self.tokens.len() || depth > MAX_DEPTH {
                return block;
            }
            let keyword = self.peek_bare().unwrap_or_default().to_owned();
            if until.contains(&keyword.as_str()) || CLOSING.contains(&keyword.as_str()) {
                return block;
            }
            block.push(self.statement(&keyword, depth + 1));
        }
    }

    fn statement(&mut self, keyword: &str, depth: usize) -> Statement {
        match keyword {
            "if" => self.conditional(depth),
            "menuentry" | "submenu" => {
                self.at += 1;
                let (words, line) = self.words(true);
                Statement::Menu { submenu: keyword == "submenu", words, body: self.braced(depth), line }
            }
            "function" => {
                self.at += 1;
                let (words, _) = self.words(true);
                let name = match words.first().map(Vec::as_slice) {
                    Some([Part::Text(name)]) => name.clone(),
                    _ => String::new(),
                };
                Statement::Function { name, body: Rc::new(self.braced(depth)) }
            }
            "for" => {
                self.at += 1;
                let (mut words, _) = self.words(false);
                let name = match words.first().map(Vec::as_slice) {
                    Some([Part::Text(name)]) => name.clone(),
                    _ => String::new(),
                };
                words.drain(..words.len().min(2));
                Statement::For { name, words, body: self.loop_body(depth) }
            }
            "while" | "until" => {
                self.at += 1;
                self.block(&["do"], depth);
                self.loop_body(depth);
                Statement::Loop
            }
            "{" => {
                let body = self.braced(depth);
                Statement::If { arms: Vec::new(), otherwise: body }
            }
            _ => {
                let (words, line) = self.words(false);
                Statement::Command { words, line }
            }
        }
    }

    fn loop_body(&mut self, depth: usize) -> Block {
        self.skip_ends();
        self.take_bare("do");
        let body = self.block(&["done"], depth);
        self.take_bare("done");
        body
    }

    fn braced(&mut self, depth: usize) -> Block {
        self.skip_ends();
        if !self.take_bare("{") {
            return Vec::new();
        }
        let body = self.block(&["}"], depth);
        self.take_bare("}");
        body
    }

    fn conditional(&mut self, depth: usize) -> Statement {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        while self.take_bare("if") || self.take_bare("elif") {
            let condition = self.block(&["then"], depth);
            self.take_bare("then");
            let body = self.block(&["elif", "else", "fi"], depth);
            arms.push((condition, body));
            if self.peek_bare() != Some("elif") {
                break;
            }
        }
        if self.take_bare("else") {
            otherwise = self.block(&["fi"], depth);
        }
        self.take_bare("fi");
        Statement::If { arms, otherwise }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(word: &Word) -> String {
        let part = |p: &Part| match p {
            Part::Text(t) => t.clone(),
            Part::Variable { name, .. } => format!("<{name}>"),
        };
        word.iter().map(part).collect()
    }

    fn commands(source: &str) -> Vec<Vec<String>> {
        let words = |s: &Statement| match s {
            Statement::Command { words, .. } => words.iter().map(text).collect(),
            other => vec![format!("{other:?}")],
        };
        parse(source).iter().map(words).collect()
    }

    #[test]
    fn quotes_escapes_and_comments() {
        assert_eq!(
            commands("set a='x  $y \"z\"'; b\\ c \"d$e ${f}\\\" \\n\" # rest\n''"),
            [vec!["set", "a=x  $y \"z\""], vec!["b c", "d<e> <f>\" \\n"], vec![""]]
        );
        assert_eq!(commands("linux a#b \\\n  c\nx=${y}z"), [vec!["linux", "a#b", "c"], vec!["x=<y>z"]]);
    }

    #[test]
    fn blocks_nest() {
        let source =
            "if [ a ]; then\n b\nelif c; then d; else\n menuentry 'x' --id y {\n e\n }\nfi\nfunction f {\n g }\nh";
        let block = parse(source);
        let [Statement::If { arms, otherwise }, Statement::Function { name, body }, Statement::Command { words, line }] =
            block.as_slice()
        else {
            panic!("{block:?}");
        };
        assert_eq!((arms.len(), otherwise.len(), name.as_str(), body.len()), (2, 1, "f", 1));
        assert_eq!((text(&words[0]), *line), ("h".to_owned(), 10));
        let Statement::Menu { submenu: false, words, body, line: 4 } = &otherwise[0] else { panic!("{otherwise:?}") };
        assert_eq!(
            (words.iter().map(text).collect::<Vec<_>>(), body.len()),
            (vec!["x".into(), "--id".into(), "y".into()], 1)
        );
    }

    #[test]
    fn what_is_not_closed_ends_with_the_file() {
        assert_eq!(parse("menuentry a {\n linux x").len(), 1);
        assert_eq!(parse("fi\n}\nlinux x").len(), 1);
        assert_eq!(parse("'open\nquote").len(), 1);
        parse(&"{ ".repeat(100_000));
        parse(&"if ".repeat(100_000));
        parse(&"menuentry {\n".repeat(100_000));
    }
}
