//! The kernel's command line: the image's own, with what a paravirtual machine needs.

/// Disk names that kernels gave their first disk on the hypervisors AMIs were made for, and that no disk of this machine
/// has.
const FOREIGN_DISKS: [&str; 3] = ["xvda", "sda", "hda"];

/// Adds the serial console where the command line has none; the last console named is the one that `/dev/console` is.
#[must_use]
pub fn with_console(cmdline: &str) -> String {
    let has_it = words(cmdline).any(|w| w == "console=ttyS0" || w.starts_with("console=ttyS0,"));
    if has_it { cmdline.trim().to_owned() } else { for_kernel(cmdline, "console=ttyS0") }
}

/// Adds words for the kernel: before a `--`, after which all words are the init's.
fn for_kernel(cmdline: &str, more: &str) -> String {
    let end = words(cmdline).last().map_or(0, |last| last.as_ptr().addr() - cmdline.as_ptr().addr() + last.len());
    let (kernels, inits) = cmdline.split_at(end);
    joined(&joined(kernels, more), inits)
}

/// Adds words at the end.
#[must_use]
pub fn joined(cmdline: &str, more: &str) -> String {
    match (cmdline.trim(), more.trim()) {
        ("", more) => more.to_owned(),
        (cmdline, "") => cmdline.to_owned(),
        (cmdline, more) => format!("{cmdline} {more}"),
    }
}

/// Replaces `root=/dev/xvda1` and its like, a name of the hypervisor that the image was made for, by the name that the
/// same file system has here; `root_partition` is its number, 0 for a disk without partitions. Every other `root=` stays
/// as it is. Gives the command line, and what was replaced.
#[must_use]
pub fn with_root_here(cmdline: &str, root_partition: Option<u32>) -> (String, Option<String>) {
    let Some(partition) = root_partition else { return (cmdline.to_owned(), None) };
    let here = if partition == 0 { "/dev/vda".to_owned() } else { format!("/dev/vda{partition}") };
    let mut replaced = None;
    let words: Vec<String> = cmdline
        .split(' ')
        .map(|word| match word.strip_prefix("root=/dev/") {
            Some(name) if is_foreign(name) => {
                replaced = Some(word.to_owned());
                format!("root={here}")
            }
            _ => word.to_owned(),
        })
        .collect();
    (words.join(" "), replaced)
}

fn is_foreign(name: &str) -> bool {
    FOREIGN_DISKS
        .iter()
        .filter_map(|disk| name.strip_prefix(disk))
        .any(|partition| partition.bytes().all(|b| b.is_ascii_digit()))
}

/// The words of a command line, those after `--` (which are the init's) left out.
fn words(cmdline: &str) -> impl Iterator<Item = &str> {
    cmdline.split_ascii_whitespace().take_while(|w| *w != "--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_added_only_where_it_is_missing() {
        assert_eq!(with_console("root=LABEL=x ro"), "root=LABEL=x ro console=ttyS0");
        assert_eq!(with_console("console=tty0 console=ttyS0,115200n8 ro"), "console=tty0 console=ttyS0,115200n8 ro");
        assert_eq!(with_console("console=ttyS01"), "console=ttyS01 console=ttyS0");
        assert_eq!(with_console(""), "console=ttyS0");
        // What follows "--" is not the kernel's.
        assert_eq!(with_console("ro quiet  -- single console=ttyS0"), "ro quiet console=ttyS0 -- single console=ttyS0");
        assert_eq!(with_console("-- single"), "console=ttyS0 -- single");
    }

    #[test]
    fn only_names_that_cannot_be_here_are_replaced() {
        let (line, was) = with_root_here("root=/dev/xvda1 ro", Some(0));
        assert_eq!((line.as_str(), was.as_deref()), ("root=/dev/vda ro", Some("root=/dev/xvda1")));
        assert_eq!(with_root_here("ro root=/dev/sda1", Some(1)).0, "ro root=/dev/vda1");
        for own in ["root=UUID=1-2 ro", "root=LABEL=r", "root=/dev/vda1", "root=/dev/mapper/sda1", "root=/dev/sdab"] {
            assert_eq!(with_root_here(own, Some(1)), (own.to_owned(), None));
        }
        assert_eq!(with_root_here("root=/dev/sda1", None).1, None);
    }
}
