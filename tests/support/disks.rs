//! Disks made by the test.
