//! EC2's API with real guests behind it: the README's tour with the aws CLI, and Packer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::testbed::{Done, ami, run_with, tool};

/// An archive of the aws CLI for the test machine.
fn aws() -> PathBuf {
    let made = Command::new(tool("aws-clients")).arg("--machine").stderr(Stdio::inherit()).output();
    let made = made.expect("tools/aws-clients starts");
    assert!(made.status.success(), "tools/aws-clients failed");
    String::from_utf8_lossy(&made.stdout).trim().into()
}

fn run(packages: &str, more: &[(&str, &Path)], seconds: u32, script: &str) -> Done {
    let (image, aws) = (ami("debian-12"), aws());
    let mut files = vec![("disk.raw", image.as_path()), ("aws.tar.gz", aws.as_path())];
    files.extend(more);
    let packages = format!("python3,passt,openssh-client,seabios{packages}");
    let options = ["--root", "debian", "--packages", &packages, "--memory", "4096"];
    let prepare = "export AMIBOOT_HOME=$PWD/home; tar -xzf $FILES/aws.tar.gz; PATH=$PWD/aws:$PATH; ";
    run_with(&options, &files, seconds, &format!("{prepare}{script}"))
}

#[test]
fn the_readmes_tour_launches_reaches_and_images_an_instance() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (script, readme) = (root.join("tools/demo/tour.sh"), root.join("README.md"));
    let files = [("tour.sh", script.as_path()), ("README.md", readme.as_path())];
    let done = run("", &files, 2400, "sh $FILES/tour.sh $FILES/README.md $FILES/disk.raw");
    done.shows("built by hand");
    done.shows("ip-172-31-");
    done.shows("web-1\tavailable\tsnap-");
    done.shows("tour: done");
    done.succeeded();
}

#[test]
fn packer_builds_an_image_that_boots() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/demo/packer.sh");
    let done = run(",packer", &[("packer.sh", script.as_path())], 3000, "sh $FILES/packer.sh $FILES/disk.raw");
    done.shows("packer: built ami-");
    done.shows("packer: left behind: nothing");
    done.shows("packer was here");
    done.shows("packer: done");
    done.succeeded();
}
