//! What GRUB's `search` looks for (GNU GRUB manual, "search").

/// What tells the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A file on it.
    File,
    /// The label of its file system.
    Label,
    /// The UUID of its file system.
    Uuid,
}

/// A search as its words ask for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Search {
    pub by: By,
    pub name: String,
    /// The variable that is set to the device found.
    pub variable: Option<String>,
}

impl Search {
    /// The arguments of `search`; nothing where no name is among them.
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let mut by = By::File;
        let mut variable = None;
        let mut names = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // The hint may be a word of its own.
                "--hint" | "-h" | "--hint-ieee1275" | "--hint-bios" | "--hint-baremetal" | "--hint-efi"
                | "--hint-arc" => {
                    arguments.next();
                }
                "--fs-uuid" | "-u" => by = By::Uuid,
                "--label" | "--fs-label" | "-l" => by = By::Label,
                "--file" | "-f" => by = By::File,
                "--set" | "-s" => variable = Some("root"),
                other => match other.strip_prefix("--set=") {
                    Some(name) => variable = Some(name),
                    None if other.starts_with('-') => {}
                    None => names.push(other),
                },
            }
        }
        // `--set root NAME`, with the variable as a word of its own.
        if let ([first, _], Some(_)) = (names.as_slice(), variable) {
            variable = Some(first);
        }
        let variable = variable.filter(|name| !name.is_empty()).map(str::to_owned);
        Some(Self { by, name: (*names.last()?).to_owned(), variable })
    }

    /// The arguments of `search.fs_uuid` and its like, `NAME [VARIABLE [HINT...]]`, as the configuration on an EFI system
    /// partition has it.
    pub fn short(by: By, arguments: &[String]) -> Option<Self> {
        let (name, rest) = arguments.split_first()?;
        let variable = rest.first().map_or("root", String::as_str);
        Some(Self { by, name: name.clone(), variable: (!variable.is_empty()).then(|| variable.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(by: By, name: &str, variable: Option<&str>) -> Option<Search> {
        Some(Search { by, name: name.to_owned(), variable: variable.map(str::to_owned) })
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_configurations_write() {
        for (text, expected) in [
            ("--no-floppy --fs-uuid --set=root AB", search(By::Uuid, "AB", Some("root"))),
            (
                "--no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 --hint hd0,gpt1 AB",
                search(By::Uuid, "AB", Some("root")),
            ),
            ("--label --set dev rootfs", search(By::Label, "rootfs", Some("dev"))),
            ("-l -s rootfs", search(By::Label, "rootfs", Some("root"))),
            ("-f /boot/x", search(By::File, "/boot/x", None)),
            ("--set=root --file", None),
        ] {
            assert_eq!(Search::parse(&words(text)), expected, "{text}");
        }
        assert_eq!(Search::short(By::Uuid, &words("AB root hd0,gpt1")), search(By::Uuid, "AB", Some("root")));
        assert_eq!(Search::short(By::Label, &words("x")), search(By::Label, "x", Some("root")));
        assert_eq!(Search::short(By::Label, &[]), None);
    }
}
