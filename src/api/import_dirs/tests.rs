//! Nothing leads out of the directories.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// `home`, `in/disk`, `in/deep/disk`, `out/secret`, `also` which leads to `in`; links in `in` that lead out.
fn world() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["in/deep", "out", "in/pipes"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in ["in/disk", "in/deep/a disk", "out/secret"] {
        fs::write(at(name), b"x").unwrap();
    }
    symlink(at("in"), at("also")).unwrap();
    symlink(at("out/secret"), at("in/link")).unwrap();
    symlink(at("out"), at("in/dir")).unwrap();
    symlink(at("in/disk"), at("in/deep/back")).unwrap();
    dir
}

fn dirs(world: &TempDir, named: &[&str]) -> ImportDirs {
    let home = Home::at(&world.path().join("home")).unwrap();
    let named: Vec<PathBuf> = named.iter().map(|name| world.path().join(name)).collect();
    ImportDirs::new(&named, &home).unwrap()
}

fn code(dirs: &ImportDirs, path: impl AsRef<Path>) -> String {
    match dirs.file(&file_url(path.as_ref().to_str().unwrap())) {
        Ok(path) => path.display().to_string(),
        Err(error) => error.code,
    }
}

#[test]
fn files_below_the_directories_are_found() {
    let world = world();
    let at = |name: &str| world.path().join(name);
    let real = |name: &str| at(name).canonicalize().unwrap().display().to_string();
    let dirs = dirs(&world, &["also"]);
    for (name, meant) in [
        ("in/disk", "in/disk"),
        ("also/disk", "in/disk"),
        ("also/deep/a disk", "in/deep/a disk"),
        ("in/deep/back", "in/disk"),
    ] {
        assert_eq!(code(&dirs, at(name)), real(meant), "{name}");
    }
    assert_eq!(dirs.file(at("in/disk").to_str().unwrap()).unwrap(), at("in/disk").canonicalize().unwrap());
}

#[test]
fn what_leads_out_is_refused_as_what_is_not_there() {
    let world = world();
    let at = |name: &str| world.path().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, at("in/pipes/one"), 0o600.into()).unwrap();
    let dirs = dirs(&world, &["in"]);
    let messages: Vec<String> = [
        "out/secret",
        "out/nothing",
        "in/nothing",
        "in/link",
        "in/dir/secret",
        "in/../out/secret",
        "in/../in/disk",
        "in",
        "in/deep",
        "in/pipes/one",
        "in/disk/more",
        "inside",
        "home/catalogue.sqlite",
    ]
    .iter()
    .map(|name| {
        let url = file_url(at(name).to_str().unwrap());
        let error = dirs.file(&url).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue", "{name}");
        error.message.replace(&url, "")
    })
    .collect();
    assert!(messages.windows(2).all(|two| two[0] == two[1]), "{messages:?}");
}

#[test]
fn of_the_catalogues_own_files_only_objects_are_found() {
    let world = world();
    let dirs = dirs(&world, &["."]);
    let home = world.path().join("home");
    fs::create_dir_all(home.join("store/bucket")).unwrap();
    for (name, is_found) in [("layers/one.data", false), ("catalogue.sqlite", false), ("store/bucket/export.raw", true)]
    {
        fs::write(home.join(name), b"x").unwrap();
        let url = file_url(home.join(name).to_str().unwrap());
        assert_eq!(dirs.file(&url).is_ok(), is_found, "{name}");
    }
}

#[test]
fn without_directories_nothing_is_imported() {
    let world = world();
    let disk = world.path().join("in/disk");
    assert_eq!(code(&dirs(&world, &[]), &disk), "UnsupportedOperation");
    assert_eq!(code(&ImportDirs::default(), &disk), "UnsupportedOperation");
    for url in ["s3://bucket/key", "https://bucket.s3.amazonaws.com/key"] {
        assert_eq!(dirs(&world, &["in"]).file(url).unwrap_err().code, "UnsupportedOperation");
    }
    let home = Home::at(&world.path().join("home")).unwrap();
    let wrong = |name: &str| ImportDirs::new(&[world.path().join(name)], &home).unwrap_err().to_string();
    assert!(wrong("nothing").contains("nothing"));
    assert!(wrong("in/disk").contains("no directory"));
}

proptest! {
    #[test]
    fn whatever_is_asked_for_nothing_outside_is_found(parts in prop::collection::vec(
        prop::sample::select(vec!["..", ".", "in", "out", "also", "dir", "link", "deep", "back", "disk", "secret", "%2e%2e", "", "%00", "%"]), 0..7)
    ) {
        let world = world();
        let dirs = dirs(&world, &["also"]);
        let root = world.path().canonicalize().unwrap();
        let url = format!("file://{}/{}", world.path().display(), parts.join("/"));
        if let Ok(found) = dirs.file(&url) {
            prop_assert!(found.starts_with(root.join("in")), "{}", found.display());
        }
    }

    #[test]
    fn urls_of_files_are_read_as_they_are_written(path in "/[^\0]{0,40}") {
        prop_assert_eq!(local_path(&file_url(&path)).unwrap(), PathBuf::from(path));
    }
}
