//! GRUB 2's `grub.cfg`: which entries its menu shows, what each would start, and which one is the default.
//!
//! The script is interpreted, not scanned: what `grub-mkconfig` writes depends on variables, on `grubenv` and on files
//! that are there or not. What only a running machine could tell (keys pressed, video modes, timeouts) counts as not
//! the case. A budget bounds the work whatever the script does.

mod run;
mod script;
mod search;
mod test_command;

use run::Machine;

use super::{Draft, Files, MAX_CONFIG};

/// A line of the menu. Submenus are lines, too, which matters for a default given as a number.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub title: String,
    pub id: Option<String>,
    /// Which of the drafts it starts; `None` for what is no Linux kernel, such as the firmware's set-up.
    pub draft: Option<usize>,
    pub children: Vec<Item>,
}

/// What a configuration file led to.
#[derive(Debug, Default)]
pub(super) struct Menu {
    pub drafts: Vec<Draft>,
    /// The draft that is started when nobody chooses.
    pub default: Option<usize>,
}

/// Reads the menu that the configuration file at `path` of `partition` makes.
pub(super) fn menu(files: &mut dyn Files, partition: u32, path: &str) -> Option<Menu> {
    let text = files.read(partition, path, MAX_CONFIG)?;
    let prefix = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut machine = Machine::new(files, partition, prefix);
    machine.run_file(partition, path, &String::from_utf8_lossy(&text));
    let default = machine.variable("default").to_owned();
    let (drafts, items) = machine.finish();
    let default = chosen(&items, &default).or_else(|| first_draft(&items));
    Some(Menu { drafts, default })
}

/// The draft that a value of `default` or `fallback` names: a number, an id, a title, or several of them joined by `>`
/// for an entry of a submenu (GNU GRUB manual, "default").
fn chosen(items: &[Item], default: &str) -> Option<usize> {
    // A title may hold `>` itself, which the manual wants doubled.
    if let Some(item) = select(items, &default.replace(">>", ">")) {
        return item.draft.or_else(|| first_draft(&item.children));
    }
    let (first, rest) = default.split_once('>')?;
    chosen(&select(items, first)?.children, rest)
}

fn select<'a>(items: &'a [Item], name: &str) -> Option<&'a Item> {
    if name.is_empty() {
        return items.first();
    }
    if let Ok(number) = name.parse::<usize>() {
        return items.get(number);
    }
    items.iter().find(|i| i.id.as_deref() == Some(name) || i.title == name)
}

fn first_draft(items: &[Item]) -> Option<usize> {
    items.iter().find_map(|i| i.draft.or_else(|| first_draft(&i.children)))
}

#[cfg(test)]
mod tests;
