//! Instances of a stock image that configure themselves from the metadata service, and that a person logs in to, as the README
//! shows it: `tools/demo/ssh.sh`.

use std::path::Path;

use crate::support::testbed::{ami, run_with};

#[test]
fn a_stock_image_configures_itself_and_lets_its_owner_in() {
    let image = ami("debian-12");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/demo/ssh.sh");
    let files = [("disk.raw", image.as_path()), ("ssh.sh", script.as_path())];
    let options = ["--root", "debian", "--packages", "passt,openssh-client,seabios", "--memory", "5120"];
    let done = run_with(&options, &files, 2400, "export AMIBOOT_HOME=$PWD/home; sh $FILES/ssh.sh $FILES/disk.raw");
    done.shows("without a token: 401");
    done.shows("3 packets transmitted, 3 received, 0% packet loss");
    done.shows("ssh: done");
    for kind in ["pv", "hvm"] {
        // What the guest says after the name of the instance.
        let (_, said) = done.text.split_once(&format!("# The {kind} instance")).expect("it has begun");
        let said = said.split("\n# ").next().unwrap_or_default();
        let shows = |wanted: &str| assert!(said.contains(wanted), "{kind} does not show {wanted:?}:\n{said}");
        shows("status: done");
        shows("DataSourceEc2Local");
        shows("\"errors\": []");
        shows("warnings: 0");
        shows("user data ran as root on ip-172-31-");
        shows("root file system: 4.8G");
        shows("Role: demo");
    }
    done.shows("Role: changed");
    done.succeeded();
}

#[test]
fn an_image_that_looks_for_a_disk_only_finds_its_data_there() {
    let image = ami("debian-12");
    let script = r#"set -e
        export AMIBOOT_HOME=$PWD/home
        mkdir home
        cat >user-data <<'END'
#!/bin/sh
echo "se""ed: $(cloud-id) on $(hostname)" >/dev/console
END
        amiboot run $FILES/disk.raw --mode pv --memory 1G --net isolated --cloud-init nocloud --append ds=nocloud \
            --user-data user-data --until 'seed: nocloud on ip-172-31-' --timeout 800s"#;
    let done = run_with(&["--memory", "3072"], &[("disk.raw", image.as_path())], 1000, script);
    done.shows("seed: nocloud on ip-172-31-");
    done.succeeded();
}
