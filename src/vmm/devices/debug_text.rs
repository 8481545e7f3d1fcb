//! What firmware's debug text tells of a boot.

use std::sync::Arc;

use super::chipset::TextSink;
use crate::vmm::timeline::{Mark, Timeline};

/// Hands the text on to `sink`, and records when firmware first says something and when it enters a boot loader.
#[must_use]
pub fn watch(timeline: Arc<Timeline>, sink: TextSink) -> TextSink {
    Arc::new(move |text: &[u8]| {
        timeline.mark(Mark::FirmwareStarted);
        if enters_boot_loader(text) {
            timeline.mark(Mark::BootLoaderStarted);
        }
        sink(text);
    })
}

/// SeaBIOS says "Booting from 0000:7c00" just before it jumps there, and "Booting from Hard Disk..." before it has read
/// what is there. OVMF, where it says anything, says what it also says on the console.
fn enters_boot_loader(line: &[u8]) -> bool {
    const BIOS: &[u8] = b"Booting from ";
    let Some(at) = line.strip_prefix(BIOS) else {
        return line.windows(UEFI.len()).any(|window| window == UEFI);
    };
    // A segment and an offset of four hexadecimal digits each.
    at.len() >= 9 && at[..4].iter().chain(&at[5..9]).all(u8::is_ascii_hexdigit) && at[4] == b':'
}

/// OVMF starts what a boot option names.
pub const UEFI: &[u8] = b"BdsDxe: starting Boot";

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_jump_into_the_boot_loader_is_told_from_the_way_there() {
        for (line, expected) in [
            (&b"Booting from Hard Disk...\n"[..], false),
            (b"Booting from 0000:7c00\n", true),
            (b"Booting from 0000:7c0", false),
            (b"Booting from 0000-7c00\n", false),
            (b"Booting from ", false),
            (b"\x1b[2J\x1b[01;01HBdsDxe: starting Boot0001 \"UEFI Misc Device\"\r\n", true),
            (b"BdsDxe: failed to start Boot0001", false),
            (b"", false),
        ] {
            assert_eq!(enters_boot_loader(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn text_is_handed_on_as_it_is() {
        let (timeline, seen) = (Arc::new(Timeline::from_process_start()), Arc::new(Mutex::new(Vec::new())));
        let into = seen.clone();
        let sink = watch(timeline.clone(), Arc::new(move |text| into.lock().unwrap().extend_from_slice(text)));
        sink(b"SeaBIOS\n");
        assert_eq!(timeline.instants().len(), 1);
        sink(b"Booting from 0000:7c00\n");
        assert_eq!(*seen.lock().unwrap(), b"SeaBIOS\nBooting from 0000:7c00\n");
        let names: Vec<_> = timeline.instants().iter().map(|instant| instant.name).collect();
        assert_eq!(names, [Mark::FirmwareStarted, Mark::BootLoaderStarted]);
    }
}
