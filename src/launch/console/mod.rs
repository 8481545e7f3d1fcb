//! The person's side of the console: what is shown, typed, looked for.

pub mod escape;
pub mod pump;
pub mod terminal;
pub mod transcript;
