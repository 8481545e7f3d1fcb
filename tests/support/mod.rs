//! What the tests with guests share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[cfg(feature = "whole-guest")]
pub mod testbed;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Builds the tiny guest `tests/guests/NAME.S`: a 32-bit ELF kernel with a PVH entry.
pub fn tiny_guest(dir: &TempDir, name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
    let out = dir.path().join(name);
    let status = Command::new("cc")
        .args([
            "-m32",
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none",
            "-Wl,-Ttext-segment=0x100000",
            "-Wl,-N",
            "-Wl,--no-warn-rwx-segments",
        ])
        .arg(format!("-Wa,-I{}", sources.display()))
        .arg(sources.join(name).with_extension("S"))
        .arg("-o")
        .arg(&out)
        .status()
        .expect("cc (Debian package gcc) assembles the tiny guests");
    assert!(status.success(), "assembling {name}.S");
    out
}
