//! A disk becomes a running machine: which volumes it gets.

pub mod bdm;
