//! GRUB's `test` command, also written `[ ... ]` (GNU GRUB manual, "test").

/// Asks for a file: the operator (`-e`, `-f`, `-d` or `-s`) and the path.
pub(super) type FileTest<'a> = dyn FnMut(&str, &str) -> bool + 'a;

/// The truth of the expression in `words` (without the brackets).
pub(super) fn evaluate(words: &[String], file: &mut FileTest<'_>) -> bool {
    Expression { words, at: 0, depth: 0 }.any(file)
}

struct Expression<'a> {
    words: &'a [String],
    at: usize,
    depth: usize,
}

impl<'a> Expression<'a> {
    fn peek(&self, ahead: usize) -> Option<&'a str> {
        self.words.get(self.at + ahead).map(String::as_str)
    }

    fn take(&mut self) -> &'a str {
        let word = self.peek(0).unwrap_or_default();
        self.at += 1;
        word
    }

    fn any(&mut self, file: &mut FileTest<'_>) -> bool {
        let mut truth = self.all(file);
        while self.peek(0) == Some("-o") {
            self.at += 1;
            truth |= self.all(file);
        }
        truth
    }

    fn all(&mut self, file: &mut FileTest<'_>) -> bool {
        let mut truth = self.single(file);
        while self.peek(0) == Some("-a") {
            self.at += 1;
            truth &= self.single(file);
        }
        truth
    }

    fn single(&mut self, file: &mut FileTest<'_>) -> bool {
        self.depth += 1;
        if self.depth > 64 {
            self.at = self.words.len();
            return false;
        }
        let operator = self.peek(1).filter(|_| self.peek(2).is_some());
        match (self.peek(0), operator) {
            (None, _) => false,
            (_, Some("=" | "==" | "!=" | "<" | ">" | "<=" | ">=")) => self.compare_text(),
            (_, Some("-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge")) => self.compare_numbers(),
            (Some("!"), _) if self.peek(1).is_some() => {
                self.at += 1;
                !self.single(file)
            }
            (Some("("), _) if self.peek(1).is_some() => {
                self.at += 1;
                let truth = self.any(file);
                self.at += usize::from(self.peek(0) == Some(")"));
                truth
            }
            (Some("-n"), _) if self.peek(1).is_some() => {
                self.at += 1;
                !self.take().is_empty()
            }
            (Some("-z"), _) if self.peek(1).is_some() => {
                self.at += 1;
                self.take().is_empty()
            }
            (Some("-e" | "-f" | "-d" | "-s"), _) if self.peek(1).is_some() => {
                let (operator, path) = (self.take(), self.take());
                file(operator, path)
            }
            _ => !self.take().is_empty(),
        }
    }

    fn compare_text(&mut self) -> bool {
        let (left, operator, right) = (self.take(), self.take(), self.take());
        match operator {
            "=" | "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            ">" => left > right,
            "<=" => left <= right,
            _ => left >= right,
        }
    }

    fn compare_numbers(&mut self) -> bool {
        let (left, operator, right) = (self.take(), self.take(), self.take());
        let number = |s: &str| s.trim().parse::<i64>().unwrap_or(0);
        let (left, right) = (number(left), number(right));
        match operator {
            "-eq" => left == right,
            "-ne" => left != right,
            "-lt" => left < right,
            "-le" => left <= right,
            "-gt" => left > right,
            _ => left >= right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let cases = [
            ("a = a", true),
            ("a == b", false),
            ("a != b", true),
            ("! a = a", false),
            ("-n x", true),
            ("-z x", false),
            ("x", true),
            ("", false),
            ("3 -gt 2 -a a = a", true),
            ("a = b -o 2 -le 2", true),
            ("( a = b -o c = c ) -a d = d", true),
            ("-f /yes", true),
            ("! -f /yes", false),
            ("-s /no", false),
            ("-f", true),
            ("= = =", true),
        ];
        for (text, expected) in cases {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            assert_eq!(evaluate(&words, &mut |_, path| path == "/yes"), expected, "{text}");
        }
        // The empty string in quotes is a word.
        assert!(!evaluate(&[String::new()], &mut |_, _| true));
        assert!(evaluate(&["-z".into(), String::new()], &mut |_, _| true));
        let deep: Vec<String> = std::iter::repeat_n("!".to_owned(), 100_000).collect();
        evaluate(&deep, &mut |_, _| true);
    }
}
