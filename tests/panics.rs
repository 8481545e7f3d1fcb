//! Panics are the whole process's: this test has one to itself.

use std::io;

use amiboot::host::panics::{catch, watch};

#[test]
fn a_panic_is_told_and_one_that_is_caught_is_not() {
    let event = watch().unwrap();
    assert_eq!(catch(|| panic!("over bad input")), None::<()>);
    assert_eq!(catch(|| 7), Some(7));
    assert_eq!(event.read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(std::thread::spawn(|| panic!("the test's own, on purpose")).join().is_err());
    assert_eq!(event.read().unwrap(), 1);
}
