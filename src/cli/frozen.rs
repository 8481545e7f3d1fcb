//! What is said of the file systems that were frozen for snapshots.

use super::output::note;
use crate::cloud::{FileSystems, Taken};

/// Says what the file systems of running instances were while snapshots were taken, where there is something to say: of a guest
/// without an agent there is not. Gives what was made.
pub fn told<T>(taken: Taken<T>) -> T {
    taken
        .file_systems
        .iter()
        .filter_map(|(id, were)| Some(format!("{id}: {}", words(were)?)))
        .for_each(|line| note(&line));
    taken.made
}

fn words(were: &FileSystems) -> Option<String> {
    match were {
        FileSystems::InUse => None,
        FileSystems::Frozen { thawed: true, .. } => {
            Some("the guest's file systems were frozen for the snapshot".into())
        }
        FileSystems::Frozen { thawed: false, .. } => Some(
            "the guest's file systems were frozen for the snapshot; it has not said yet that it has thawed them, and is \
             asked until it does"
                .into(),
        ),
        FileSystems::NotFrozen { why } => {
            Some(format!("the guest's file systems were not frozen for the snapshot, which has what was flushed: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_something_to_say_where_there_is_an_agent() {
        assert_eq!(words(&FileSystems::InUse), None);
        let frozen = |thawed| words(&FileSystems::Frozen { count: 1, thawed }).unwrap();
        assert_eq!(frozen(true), "the guest's file systems were frozen for the snapshot");
        assert!(frozen(false).contains("not said yet"));
        assert!(words(&FileSystems::NotFrozen { why: "it sleeps".into() }).unwrap().ends_with(": it sleeps"));
    }
}
