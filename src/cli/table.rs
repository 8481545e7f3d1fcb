//! Tables of the catalogue's things: as wide as they have to be where a program reads them, and no wider than the terminal
//! where a person does.

use std::borrow::Cow;
use std::io::IsTerminal;

use super::output::{HEADING, clean};

/// What stands between two columns.
const GAP: usize = 2;
/// The least that is left of text that is cut.
const LEAST: usize = 12;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    right: bool,
    is_cut: bool,
    is_dropped: bool,
}

impl Column {
    /// A column that is shown whole.
    pub const fn new(name: &'static str) -> Self {
        Self { name, right: false, is_cut: false, is_dropped: false }
    }

    /// Its text stands at the right.
    pub const fn right(self) -> Self {
        Self { right: true, ..self }
    }

    /// Its text is cut in the middle, where there is not enough room.
    pub const fn cut(self) -> Self {
        Self { is_cut: true, ..self }
    }

    /// It is left out, where there still is not.
    pub const fn dropped(self) -> Self {
        Self { is_dropped: true, ..self }
    }
}

/// A table for standard output. Columns in which nothing stands are left out.
pub fn render<S: AsRef<str>>(columns: &[Column], rows: &[Vec<S>]) -> String {
    render_in(columns, rows, terminal_width())
}

/// Characters of a line of the terminal that standard output is, if it is one.
fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

fn render_in<S: AsRef<str>>(columns: &[Column], rows: &[Vec<S>], width: Option<usize>) -> String {
    let shown = fit(columns, rows, width);
    let line = shown.iter().map(|(_, width)| width + GAP).sum::<usize>() + 1;
    let mut text = String::with_capacity(line.saturating_mul(rows.len().saturating_add(1)).saturating_add(16));
    text.push_str(&format!("{HEADING}"));
    put_line(&mut text, columns, &shown, |column| columns[column].name);
    text.pop();
    text.push_str(&format!("{HEADING:#}\n"));
    for row in rows {
        put_line(&mut text, columns, &shown, |column| row.get(column).map_or("", AsRef::as_ref));
    }
    text
}

fn put_line<'a>(text: &mut String, columns: &[Column], shown: &[(usize, usize)], cell: impl Fn(usize) -> &'a str) {
    for (number, width) in shown {
        let cell = fitting(cell(*number), *width);
        let pad = width.saturating_sub(cell.chars().count());
        let (before, after) = if columns[*number].right { (pad, 0) } else { (0, pad) };
        text.extend(std::iter::repeat_n(' ', before));
        text.push_str(&cell);
        text.extend(std::iter::repeat_n(' ', after + GAP));
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// Which columns are shown, and how wide.
fn fit<S: AsRef<str>>(columns: &[Column], rows: &[Vec<S>], width: Option<usize>) -> Vec<(usize, usize)> {
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.as_ref().chars().count()).max()
    };
    let mut shown: Vec<(usize, usize)> = columns
        .iter()
        .enumerate()
        .filter_map(|(number, column)| Some((number, widest(number).filter(|w| *w > 0)?.max(column.name.len()))))
        .collect();
    let Some(width) = width else { return shown };
    let total =
        |shown: &[(usize, usize)]| shown.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP);
    // What is cut gives up what it can; where that is not enough, columns go, the last first.
    loop {
        let over = total(&shown).saturating_sub(width);
        let spare = |(column, width): &(usize, usize)| {
            if columns[*column].is_cut { width.saturating_sub(LEAST.max(columns[*column].name.len())) } else { 0 }
        };
        let last = shown.iter().rposition(|(column, _)| columns[*column].is_dropped);
        match last {
            Some(last) if shown.iter().map(spare).sum::<usize>() < over => drop(shown.remove(last)),
            _ => {
                let mut over = over;
                for entry in &mut shown {
                    let less = spare(entry).min(over);
                    entry.1 -= less;
                    over -= less;
                }
                return shown;
            }
        }
    }
}

/// A text with nothing in it that drives a terminal; its beginning and its end, where there is no room for more.
fn fitting(text: &str, width: usize) -> Cow<'_, str> {
    let text = if text.chars().any(char::is_control) { Cow::from(clean(text)) } else { Cow::from(text) };
    let length = text.chars().count();
    if length <= width {
        return text;
    }
    let kept = width.saturating_sub(1);
    let head = kept.div_ceil(2);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(length - (kept - head))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("ID"),
        Column::new("NAME").cut(),
        Column::new("SIZE").right().dropped(),
        Column::new("OWNER").dropped(),
    ];

    fn rows() -> Vec<Vec<String>> {
        [["a-1", "short", "8 GiB", ""], ["a-2", "a-very-long-name-that-ends-in-2026", "10 GiB", ""]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_program_gets_everything() {
        let text = plain(&render_in(&COLUMNS, &rows(), None));
        assert_eq!(
            text,
            "ID   NAME                                  SIZE\n\
             a-1  short                                8 GiB\n\
             a-2  a-very-long-name-that-ends-in-2026  10 GiB\n"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_what_fits() {
        let text = plain(&render_in(&COLUMNS, &rows(), Some(31)));
        assert_eq!(
            text,
            "ID   NAME                  SIZE\n\
             a-1  short                8 GiB\n\
             a-2  a-very-lo…-in-2026  10 GiB\n"
        );
        let text = plain(&render_in(&COLUMNS, &rows(), Some(20)));
        assert_eq!(text, "ID   NAME\na-1  short\na-2  a-very-…in-2026\n");
        for width in 1..60 {
            let text = plain(&render_in(&COLUMNS, &rows(), Some(width)));
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.max(3 + GAP + LEAST), "{width}: {text}");
        }
    }

    #[test]
    fn nothing_in_it_drives_the_terminal() {
        let rows = [vec!["a\x1b[2J".to_owned()]];
        assert!(!render_in(&[Column::new("ID")], &rows, None).contains("\x1b[2J"));
    }
}
