//! Values of filters, with EC2's wildcards.
//!
//! `*` matches any number of characters, `?` one or none ("Filtering considerations" of the EC2 user guide), and `\` takes
//! its meaning from the character behind it. Matching takes at most the product of both lengths, whatever the pattern.

/// A value to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// No wildcard: this and nothing else.
    Exact(String),
    /// What stands between stars: the first at the beginning, the last at the end.
    Stars(Vec<String>),
    /// Anything.
    Tokens(Vec<Token>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Character(char),
    /// `?`
    Optional,
    /// `*`
    Any,
}

impl Pattern {
    /// Reads a value as a caller writes it. Every text is one; a `\` at the end stands for itself.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let token = match character {
                '*' => Token::Any,
                '?' => Token::Optional,
                '\\' => Token::Character(characters.next().unwrap_or('\\')),
                other => Token::Character(other),
            };
            tokens.push(token);
        }
        if tokens.contains(&Token::Optional) {
            return Self(Form::Tokens(tokens));
        }
        let mut parts = vec![String::new()];
        for token in tokens {
            match (token, parts.last_mut()) {
                (Token::Character(character), Some(part)) => part.push(character),
                _ => parts.push(String::new()),
            }
        }
        match <[String; 1]>::try_from(parts) {
            Ok([exact]) => Self(Form::Exact(exact)),
            Err(parts) => Self(Form::Stars(parts)),
        }
    }

    /// The only text that matches, where the pattern has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match &self.0 {
            Form::Exact(text) => Some(text),
            _ => None,
        }
    }

    /// Whether all of `text` matches; upper and lower case differ.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Form::Exact(exact) => exact == text,
            Form::Stars(parts) => match_parts(parts, text),
            Form::Tokens(tokens) => match_tokens(tokens, text),
        }
    }
}

/// Finds each part behind the one before; to take the earliest place leaves the most room for the rest.
fn match_parts(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
        return false;
    };
    for part in middle {
        let Some(at) = rest.find(part.as_str()) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

/// Follows all ways through the tokens at once: `reached[n]` says that the text so far can end before token `n`.
fn match_tokens(tokens: &[Token], text: &str) -> bool {
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    skip(tokens, &mut reached);
    let mut next = reached.clone();
    for character in text.chars() {
        next.fill(false);
        for (number, token) in tokens.iter().enumerate().filter(|(number, _)| reached[*number]) {
            match token {
                Token::Any => next[number] = true,
                Token::Optional => next[number + 1] = true,
                Token::Character(wanted) if *wanted == character => next[number + 1] = true,
                Token::Character(_) => {}
            }
        }
        skip(tokens, &mut next);
        std::mem::swap(&mut reached, &mut next);
    }
    reached[tokens.len()]
}

/// Wildcards also match nothing.
fn skip(tokens: &[Token], reached: &mut [bool]) {
    for (number, token) in tokens.iter().enumerate() {
        if reached[number] && matches!(token, Token::Any | Token::Optional) {
            reached[number + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).matches(text)
    }

    #[test]
    fn the_user_guides_examples() {
        let all = ["prod", "prods", "production"];
        let matching = |pattern: &str| all.into_iter().filter(|text| matches(pattern, text)).collect::<Vec<_>>();
        assert_eq!(matching("prod"), ["prod"]);
        assert_eq!(matching("prod?"), ["prod", "prods"]);
        assert_eq!(matching("prod*"), all);
        assert_eq!(matching("*prod*"), all);
        assert!(matches(r"\*amazon\?\\", r"*amazon?\"));
        assert!(!matches(r"\*amazon\?\\", r"xamazonx\"));
    }

    #[test]
    fn edges() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", true),
            ("??", "ab", true),
            ("??", "abc", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab*", "ab", false),
            ("*ab*ab", "abab", true),
            ("a?c", "ac", true),
            ("a?c", "aéc", true),
            ("ab", "AB", false),
            ("a\\", "a\\", true),
            (r"\a", "a", true),
            ("**", "anything", true),
            ("a*b?c*d", "axxbcyyd", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn nothing_blows_up() {
        let text = "a".repeat(5000);
        for part in ["*a", "?a", "*?a", "a*"] {
            let pattern = format!("{}b", part.repeat(100));
            assert!(!matches(&pattern, &text));
        }
    }

    /// What the words of the user guide say, word for word, and slowly.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['*', rest @ ..], text) => (0..=text.len()).any(|n| slow(rest, &text[n..])),
            (['?', rest @ ..], text) => slow(rest, text) || !text.is_empty() && slow(rest, &text[1..]),
            (['\\'], text) => text == ['\\'],
            (['\\', wanted, rest @ ..] | [wanted, rest @ ..], [first, others @ ..]) => {
                wanted == first && slow(rest, others)
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn fast_is_slow(pattern in r"[ab*?\\]{0,8}", text in r"[ab*\\]{0,8}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), slow(&p, &t));
        }

        #[test]
        fn escaped_text_matches_itself_alone(text in ".{0,20}", other in ".{0,20}") {
            let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
            let pattern = Pattern::new(&escaped);
            prop_assert_eq!(pattern.exact(), Some(text.as_str()));
            prop_assert!(pattern.matches(&text));
            prop_assert_eq!(pattern.matches(&other), text == other);
        }

        #[test]
        fn every_text_is_a_pattern(pattern in ".{0,40}", text in ".{0,40}") {
            let _ = matches(&pattern, &text);
        }
    }
}
