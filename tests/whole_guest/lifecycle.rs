//! The whole life of an image, as the README shows it: `tools/demo/lifecycle.sh`.

use std::path::Path;

use crate::support::testbed::{ami, run_with};

#[test]
fn an_image_is_imported_launched_made_copied_shared_and_deregistered() {
    let image = ami("tiny-pv");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/demo/lifecycle.sh");
    let files = [("disk.raw", image.as_path()), ("lifecycle.sh", script.as_path())];
    let done = run_with(&["--memory", "3072"], &files, 600, "sh $FILES/lifecycle.sh $FILES/disk.raw");
    done.shows("InvalidAMIID.Unavailable");
    done.shows("lifecycle: done");
    done.succeeded();
}
