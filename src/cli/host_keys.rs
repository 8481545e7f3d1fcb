//! The ssh keys that a guest shows on its console, as cloud-init writes them.

use ssh_key::PublicKey;

/// What stands before them, and after them.
const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";
/// The most that are taken.
const MOST: usize = 16;

/// The keys of the last block, whole ones only, as a file of known hosts has them. Where other output has come into the block,
/// a key may be missing, but none is made up: each is checked.
#[must_use]
pub fn of_console(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let Some((_, block)) = text.rsplit_once(BEGIN) else { return Vec::new() };
    let Some((block, _)) = block.split_once(END) else { return Vec::new() };
    block.lines().filter_map(key).take(MOST).collect()
}

fn key(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (kind, data) = (words.next()?, words.next()?);
    let key = PublicKey::from_openssh(&format!("{kind} {data}")).ok()?;
    key.to_openssh().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGUMyUBINvGLW9r2ICVdTtKp5/8Tw4bd9c0rpXP5raU7";

    #[test]
    fn keys_are_taken_out_of_the_last_whole_block() {
        let block = |inner: &str| format!("boot\r\n{BEGIN}\r\n{inner}\r\n{END}\r\nlogin:");
        assert_eq!(of_console(block(&format!("{KEY} root@host")).as_bytes()), [KEY]);
        assert_eq!(of_console(block(&format!("[ 1.0] kernel: x\r\n{KEY}\r\nssh-rsa AAAA")).as_bytes()), [KEY]);
        assert!(of_console(b"").is_empty());
        assert!(of_console(format!("{BEGIN}\n{KEY}\n").as_bytes()).is_empty());
        let twice = format!("{}{}", block(KEY), block("ssh-ed25519 nonsense"));
        assert!(of_console(twice.as_bytes()).is_empty());
        assert!(of_console(&[0xff; 100]).is_empty());
    }
}
