//! Lines out of what a guest sends, however it comes.

/// The longest line that is heard, in bytes; of a longer one nothing is.
pub const LINE_MAX: usize = 64 << 10;
/// What comes before the answer to `guest-sync-delimited`. It is no byte of UTF-8: what was begun before it is void.
pub const MARK: u8 = 0xff;

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether [`MARK`] came right before it.
    pub is_marked: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What has come.
#[derive(Debug, Default)]
pub struct Lines {
    raw: Vec<u8>,
    at: usize,
    line: Vec<u8>,
    is_marked: bool,
    is_too_long: bool,
}

impl Lines {
    /// Takes what has come in the place of what was looked at; to be called when [`Self::next`] has no more.
    pub fn put(&mut self, bytes: Vec<u8>) {
        self.raw = bytes;
        self.at = 0;
    }

    /// The next whole line that is not empty.
    pub fn next(&mut self) -> Option<Line> {
        while let Some(&byte) = self.raw.get(self.at) {
            self.at += 1;
            match byte {
                MARK => {
                    self.begin();
                    self.is_marked = true;
                }
                b'\n' => {
                    let line = Line { is_marked: self.is_marked, bytes: std::mem::take(&mut self.line) };
                    let is_one = !self.is_too_long && !line.bytes.is_empty();
                    self.begin();
                    if is_one {
                        return Some(line);
                    }
                }
                _ if self.line.len() >= LINE_MAX => self.is_too_long = true,
                _ => self.line.push(byte),
            }
        }
        None
    }

    fn begin(&mut self) {
        self.line.clear();
        self.is_marked = false;
        self.is_too_long = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in pieces {
            lines.put(piece.to_vec());
            all.extend(std::iter::from_fn(|| lines.next()).map(|line| (line.is_marked, line.bytes)));
        }
        all
    }

    #[test]
    fn lines_come_in_any_pieces_and_a_mark_makes_void_what_was_begun() {
        let wanted = vec![(false, b"one".to_vec()), (true, b"three".to_vec()), (false, b"four".to_vec())];
        assert_eq!(all(&[b"one\n\ntwo\xffthree\nfour\nfive"]), wanted);
        assert_eq!(all(&[b"o", b"ne\ntw", b"o\xff", b"\xffth", b"ree\n", b"four\n"]), wanted);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut lines = Lines::default();
        for _ in 0..40 {
            lines.put(vec![b'x'; 4000]);
            assert_eq!(lines.next(), None);
            assert!(lines.line.len() <= LINE_MAX);
        }
        lines.put(b"\nnext\n".to_vec());
        assert_eq!(lines.next().unwrap().bytes, b"next");
        let longest = [&vec![b'x'; LINE_MAX][..], b"\n"].concat();
        assert_eq!(all(&[&longest])[0].1.len(), LINE_MAX);
    }

    proptest! {
        /// However it is cut, the same lines come out, none of them with an end or a mark in it.
        #[test]
        fn the_same_lines_come_out_however_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(MARK), any::<u8>()], 0..400),
            cuts in prop::collection::vec(1_usize..40, 1..40),
        ) {
            let whole = all(&[&bytes]);
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                pieces.push(piece);
                rest = later;
            }
            prop_assert_eq!(&all(&pieces), &whole);
            prop_assert!(whole.iter().all(|(_, line)| !line.is_empty() && !line.contains(&b'\n') && !line.contains(&MARK)));
        }
    }
}
