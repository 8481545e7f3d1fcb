//! Which firmware an HVM guest gets, and UEFI variables that are kept: Debian's SeaBIOS and OVMF.

use std::path::Path;

use crate::support::World;
use crate::support::testbed::{ami, run};

/// Sets a UEFI variable and restarts, or switches off where it is there already.
const UEFI_SCRIPT: &[u8] = b"@echo -off\r
setvar AmibootKept -guid 0a51b007-0000-4000-8000-00000000efe1\r
if %lasterror% == 0x0 then\r
  echo \"uefi: kept\"\r
  reset -s\r
endif\r
setvar AmibootKept -guid 0a51b007-0000-4000-8000-00000000efe1 -nv -bs =0x4142\r
echo \"uefi: set %lasterror%\"\r
reset\r
";

#[test]
fn firmware_fits_the_disk_and_uefi_variables_outlast_the_run() {
    let world = World::new();
    // Its shell runs the script, there being no boot loader.
    let disk = world.efi_disk("uefi.raw", &[("startup.nsh", UEFI_SCRIPT)]);
    let files: [(&str, &Path); 5] = [
        ("uefi.raw", &disk),
        ("tiny.raw", &ami("tiny")),
        ("bios-256k.bin", Path::new("/usr/share/seabios/bios-256k.bin")),
        ("OVMF_CODE_4M.fd", Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd")),
        ("OVMF_VARS_4M.fd", Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    ];
    let done = run(
        &files,
        500,
        "export AMIBOOT_FIRMWARE_PATH=$FILES
         amiboot run $FILES/tiny.raw --mode hvm --until SeaBIOS --timeout 100s; echo \"bios: exit=$?\"
         uefi='amiboot run $FILES/uefi.raw --firmware uefi --uefi-vars vars.fd --memory 256M --timeout 150s'
         eval $uefi --no-reboot; echo \"first: exit=$?\"
         eval $uefi; echo \"second: exit=$?\"
         cmp -s vars.fd $FILES/OVMF_VARS_4M.fd || echo the_template_is_another",
    );
    done.shows("bios: exit=0");
    done.shows("vars.fd is made from");
    done.shows("first: exit=0");
    done.shows("second: exit=0");
    done.shows("the_template_is_another");
    let said: Vec<&str> = done.text.lines().filter(|line| line.starts_with("uefi: ")).map(str::trim_end).collect();
    assert_eq!(said, ["uefi: set 0x0", "uefi: kept"]);
}
