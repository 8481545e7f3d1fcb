//! User data, as a person gives them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{CliError, Usage};
use crate::imds::document::USER_DATA_MAX;

/// What is in a file, or comes on standard input where it is called `-`.
///
/// # Errors
/// What the host says; where it is more than instances have.
pub fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let most = USER_DATA_MAX as u64 + 1;
    let mut data = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().take(most).read_to_end(&mut data),
        _ => File::open(path).and_then(|file| file.take(most).read_to_end(&mut data)),
    };
    read.map_err(|e| format!("user data: {}: {e}", path.display()))?;
    if data.len() > USER_DATA_MAX {
        let why = format!(
            "user data: {}: they are limited to {USER_DATA_MAX} bytes; gzip them, or fetch the rest from \
                           within",
            path.display()
        );
        return Err(Usage(why).into());
    }
    Ok(data)
}
