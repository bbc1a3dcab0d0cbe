//! Percent-encoding of names that are no file names.

/// The name as a file name: letters, digits and `-_.:+ ` stay (a leading dot does not), other bytes become `%XX`.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (i, b) in name.bytes().enumerate() {
        let plain = b.is_ascii_alphanumeric() || b"-_:+ ".contains(&b) || (b == b'.' && i > 0);
        if plain { out.push(char::from(b)) } else { out.push_str(&format!("%{b:02X}")) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_folder() {
        assert_eq!(encode("a/b"), "a%2Fb");
        assert_eq!(encode("../x"), "%2E.%2Fx");
        assert_eq!(encode("x.1"), "x.1");
        assert_eq!(encode("é%"), "%C3%A9%25");
    }
}
