//! Default task names: the module path of the function with dots, computed at compile time.

/// Length of `path` after `::` became `.`.
pub const fn dotted_len(path: &str) -> usize {
    let bytes = path.as_bytes();
    let (mut length, mut at) = (0, 0);
    while at < bytes.len() {
        at += if is_separator(bytes, at) { 2 } else { 1 };
        length += 1;
    }
    length
}

/// `path` with `::` as `.`; `N` is its [`dotted_len`].
pub const fn dotted<const N: usize>(path: &str) -> [u8; N] {
    let bytes = path.as_bytes();
    let mut name = [b'.'; N];
    let (mut length, mut at) = (0, 0);
    while at < bytes.len() && length < N {
        if is_separator(bytes, at) {
            at += 2;
        } else {
            name[length] = bytes[at];
            at += 1;
        }
        length += 1;
    }
    name
}

/// The text of a name that [`dotted`] made.
pub const fn text(name: &'static [u8]) -> &'static str {
    match std::str::from_utf8(name) {
        Ok(text) => text,
        // Only ASCII bytes were replaced by ASCII bytes.
        Err(_) => panic!("a path is UTF-8"),
    }
}

const fn is_separator(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b':' && at + 1 < bytes.len() && bytes[at + 1] == b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_paths_become_dotted_names() {
        const PATH: &str = "shop::orders::größe::charge";
        const BYTES: [u8; dotted_len(PATH)] = dotted(PATH);
        assert_eq!(text(&BYTES), "shop.orders.größe.charge");
        assert_eq!(dotted_len("charge"), 6);
        assert_eq!(dotted::<1>("::"), *b".");
    }
}
