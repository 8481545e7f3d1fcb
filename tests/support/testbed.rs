//! The test machine, as tests use it: a command with a genuine KVM under it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name)
}

/// The path of a demonstration AMI, built if it is not there yet.
pub fn ami(name: &str) -> PathBuf {
    let made =
        Command::new(tool("make-ami")).arg(name).stderr(Stdio::inherit()).output().expect("tools/make-ami starts");
    assert!(made.status.success(), "tools/make-ami {name} failed; its words are above");
    PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim())
}

/// What a command in the test machine has done.
pub struct Done {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output and standard error, as they came.
    pub text: String,
    out: TempDir,
}

impl Done {
    /// A file that the command left in `$OUT`.
    pub fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.out.path().join(name))
            .unwrap_or_else(|e| panic!("$OUT/{name}: {e}; it printed:\n{}", self.text))
    }

    /// A JSON file that the command left in `$OUT`.
    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.file(name)).unwrap_or_else(|e| panic!("$OUT/{name}: {e}"))
    }

    /// Fails the test unless the text holds `wanted`; shows the last lines then.
    #[track_caller]
    pub fn shows(&self, wanted: &str) {
        assert!(self.text.contains(wanted), "it does not show {wanted:?}; its last lines:\n{}", self.last_lines());
    }

    /// Fails the test unless the command ended well.
    #[track_caller]
    pub fn succeeded(&self) {
        assert_eq!(self.code, Some(0), "its last lines:\n{}", self.last_lines());
    }

    fn last_lines(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Runs a line of shell in the test machine, with files given as `$FILES/NAME`.
pub fn run(files: &[(&str, &Path)], seconds: u32, script: &str) -> Done {
    run_with(&[], files, seconds, script)
}

/// The same, with further options of `tools/testbed`.
///
/// The emulated host itself has been seen to end or to stand still: where the test machine says that it or the time is at
/// an end, the whole is tried again, the second time with two emulated processors. What really hangs, hangs each time.
pub fn run_with(options: &[&str], files: &[(&str, &Path)], seconds: u32, script: &str) -> Done {
    const TIMED_OUT: i32 = 124;
    const HOST_FAILED: i32 = 125;
    let attempts: [&[&str]; 3] = [&[], &["--cpus", "2"], &[]];
    let mut last = None;
    for more in attempts {
        let done = run_once(&[options, more].concat(), files, seconds, script);
        if !matches!(done.code, Some(TIMED_OUT | HOST_FAILED)) {
            return done;
        }
        eprintln!("the test machine ended with {:?}; it had shown:\n{}", done.code, done.last_lines());
        last = Some(done);
    }
    last.expect("there was an attempt")
}

fn run_once(options: &[&str], files: &[(&str, &Path)], seconds: u32, script: &str) -> Done {
    let out = tempfile::tempdir().expect("a directory for results");
    let mut command = Command::new(tool("testbed"));
    command.args(options).args(["--timeout", &seconds.to_string()]).arg("--out").arg(out.path());
    if let Ok(binary) = std::env::var("AMIBOOT_STATIC") {
        command.args(["--binary", &binary]);
    }
    for (name, file) in files {
        command.arg("--file").arg(format!("{}:{name}", file.display()));
    }
    let both = format!("exec 2>&1; {script}");
    let done = command.args(["--", &both]).stderr(Stdio::inherit()).output().expect("tools/testbed starts");
    Done { code: done.status.code(), text: String::from_utf8_lossy(&done.stdout).into_owned(), out }
}
