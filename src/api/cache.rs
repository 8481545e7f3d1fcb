//! Listings that were told, kept for as long as nothing in the catalogue changes.
//!
//! Clients that wait ask for the same again and again, and tell much. An answer is kept with the number that the catalogue
//! had before it was made; any commit of anybody's gives it another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cloud::Scope;

/// Most bytes that are kept.
const MAX_BYTES: usize = 64 << 20;
/// The actions whose answers depend on nothing but the request and the catalogue.
const KEPT: [&str; 10] = [
    "DescribeInstanceStatus",
    "DescribeInstances",
    "DescribeKeyPairs",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSnapshots",
    "DescribeSubnets",
    "DescribeTags",
    "DescribeVolumes",
    "DescribeVpcs",
];

/// Who asks for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    scope: Scope,
    form: Vec<u8>,
}

impl Question {
    /// A request, if its answer may be kept.
    #[must_use]
    pub fn of(scope: &Scope, action: &str, form: &[u8]) -> Option<Self> {
        KEPT.contains(&action).then(|| Self { scope: scope.clone(), form: form.to_vec() })
    }
}

#[derive(Default)]
struct State {
    version: i64,
    bytes: usize,
    answers: HashMap<Question, Arc<str>>,
}

/// The answers.
#[derive(Default)]
pub struct Cache(Mutex<State>);

impl Cache {
    /// What was answered while the catalogue had this number.
    pub fn get(&self, question: &Question, version: i64) -> Option<Arc<str>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.answers.get(question).filter(|_| state.version == version).cloned()
    }

    /// Keeps an answer that was made after the catalogue had this number.
    pub fn put(&self, question: Question, version: i64, answer: Arc<str>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = answer.len() + question.form.len();
        if state.version != version || state.bytes.saturating_add(size) > MAX_BYTES {
            *state = State { version, ..State::default() };
        }
        if size <= MAX_BYTES && state.answers.insert(question, answer).is_none() {
            state.bytes += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(form: &str) -> Question {
        Question::of(&Scope::default(), "DescribeInstances", form.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_is_good_while_the_catalogue_is_the_same() {
        let cache = Cache::default();
        assert_eq!(cache.get(&question("a"), 1), None);
        cache.put(question("a"), 1, "x".into());
        assert_eq!(cache.get(&question("a"), 1).as_deref(), Some("x"));
        assert_eq!(cache.get(&question("b"), 1), None);
        assert_eq!(cache.get(&question("a"), 2), None);
        cache.put(question("b"), 2, "y".into());
        assert_eq!(cache.get(&question("a"), 1), None);
        let elsewhere = Scope { region: "eu-west-1".into(), ..Scope::default() };
        assert_eq!(cache.get(&Question::of(&elsewhere, "DescribeInstances", b"b").unwrap(), 2), None);
        assert_eq!(Question::of(&elsewhere, "DescribeImages", b""), None);
    }

    #[test]
    fn its_size_is_bounded() {
        let cache = Cache::default();
        let large: Arc<str> = "x".repeat(MAX_BYTES / 3).into();
        for number in 0..10 {
            cache.put(question(&number.to_string()), 1, large.clone());
            assert!(cache.0.lock().unwrap().bytes <= MAX_BYTES);
        }
        assert!(cache.get(&question("9"), 1).is_some());
    }
}
