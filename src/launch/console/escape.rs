//! Keys for the monitor among those for the guest: Ctrl-a and a letter.

/// Ctrl-a.
const ESCAPE: u8 = 0x01;

/// What the person typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the guest.
    Input(Vec<u8>),
    /// End the run.
    Quit,
    /// Show the keys.
    Help,
}

/// Tells the monitor's keys from the guest's; a Ctrl-a may be the last byte of one read and its letter the first of the
/// next.
#[derive(Debug, Default)]
pub struct EscapeFilter {
    escaped: bool,
}

/// What Ctrl-a h shows; lines end as a raw terminal wants it.
pub const HELP: &str = "\r\n\
    Ctrl-a x       end the machine at once\r\n\
    Ctrl-a h       show this\r\n\
    Ctrl-a Ctrl-a  send Ctrl-a to the guest\r\n";

impl EscapeFilter {
    /// Splits what was typed, in order.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut out = Vec::new();
        for byte in bytes {
            if !std::mem::take(&mut self.escaped) {
                if *byte == ESCAPE {
                    self.escaped = true;
                } else {
                    push_input(&mut out, *byte);
                }
                continue;
            }
            match *byte {
                b'x' | b'X' => out.push(Typed::Quit),
                b'h' | b'H' | b'?' => out.push(Typed::Help),
                ESCAPE => push_input(&mut out, ESCAPE),
                // Not a key of ours: the guest gets both.
                other => {
                    push_input(&mut out, ESCAPE);
                    push_input(&mut out, other);
                }
            }
        }
        out
    }
}

fn push_input(out: &mut Vec<Typed>, byte: u8) {
    if let Some(Typed::Input(bytes)) = out.last_mut() {
        bytes.push(byte);
    } else {
        out.push(Typed::Input(vec![byte]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Typed {
        Typed::Input(bytes.to_vec())
    }

    #[test]
    fn keys_are_told_from_input_even_when_split() {
        let mut filter = EscapeFilter::default();
        assert_eq!(filter.feed(b"ls\n\x01"), vec![input(b"ls\n")]);
        assert_eq!(filter.feed(b"hx"), vec![Typed::Help, input(b"x")]);
        assert_eq!(filter.feed(b"a\x01xb"), vec![input(b"a"), Typed::Quit, input(b"b")]);
    }

    #[test]
    fn ctrl_a_twice_sends_one_and_unknown_letters_go_through() {
        let mut filter = EscapeFilter::default();
        assert_eq!(filter.feed(b"\x01\x01"), vec![input(b"\x01")]);
        assert_eq!(filter.feed(b"\x01q"), vec![input(b"\x01q")]);
    }
}
