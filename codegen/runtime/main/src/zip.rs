//! The members of zip archives, as far as `.npz` files need them.
use crate::files::{Result, input};
use crate::inflate::inflate;

/// Bytes all members together may have.
const LIMIT: u64 = 1 << 36;

fn int(b: &[u8], at: usize, n: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..n].copy_from_slice(b.get(at..at.checked_add(n)?)?);
    Some(u64::from_le_bytes(word))
}

/// The names and contents of the members, in the order of the directory.
pub(crate) fn members(b: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    match read(b) {
        Some(m) => Ok(m),
        None => input("not a zip archive that can be read"),
    }
}

fn read(b: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let first = b.len().saturating_sub(22 + 0xffff);
    let end = (first..=b.len().checked_sub(22)?).rev().find(|&i| b[i..].starts_with(b"PK\x05\x06"))?;
    let (mut count, mut at) = (int(b, end + 10, 2)?, int(b, end + 16, 4)?);
    if let Some(locator) = end.checked_sub(20).filter(|&l| b[l..].starts_with(b"PK\x06\x07")) {
        let big = usize::try_from(int(b, locator + 8, 8)?).ok()?;
        if b.get(big..)?.starts_with(b"PK\x06\x06") {
            (count, at) = (int(b, big.checked_add(32)?, 8)?, int(b, big.checked_add(48)?, 8)?);
        }
    }
    let mut at = usize::try_from(at).ok()?;
    let mut out = Vec::new();
    let mut total = 0u64;
    for _ in 0..count {
        if !b.get(at..)?.starts_with(b"PK\x01\x02") {
            return None;
        }
        let method = int(b, at + 10, 2)?;
        let (mut packed, mut size) = (int(b, at + 20, 4)?, int(b, at + 24, 4)?);
        let (name_len, extra_len, comment_len) =
            (int(b, at + 28, 2)? as usize, int(b, at + 30, 2)? as usize, int(b, at + 32, 2)? as usize);
        let mut local = int(b, at + 42, 4)?;
        let name = b.get(at + 46..at + 46 + name_len)?;
        let extra = b.get(at + 46 + name_len..at + 46 + name_len + extra_len)?;
        wide(extra, &mut [&mut size, &mut packed, &mut local]);
        let local = usize::try_from(local).ok()?;
        if !b.get(local..)?.starts_with(b"PK\x03\x04") {
            return None;
        }
        let start = local + 30 + int(b, local + 26, 2)? as usize + int(b, local + 28, 2)? as usize;
        let data = b.get(start..start.checked_add(usize::try_from(packed).ok()?)?)?;
        total = total.checked_add(size).filter(|&t| t <= LIMIT)?;
        let size = usize::try_from(size).ok()?;
        let data = match method {
            0 if data.len() == size => data.to_vec(),
            8 => inflate(data, size).filter(|d| d.len() == size)?,
            _ => return None,
        };
        out.push((String::from_utf8_lossy(name).into_owned(), data));
        at += 46 + name_len + extra_len + comment_len;
    }
    Some(out)
}

/// Replaces the fields that do not fit 32 bits by those of the zip64 record, which holds only these, in order.
fn wide(extra: &[u8], fields: &mut [&mut u64]) {
    let mut at = 0;
    while let (Some(id), Some(len)) = (int(extra, at, 2), int(extra, at + 2, 2)) {
        if id == 1 {
            let mut from = at + 4;
            for f in fields.iter_mut().filter(|f| ***f == 0xffff_ffff) {
                if let Some(v) = int(extra, from, 8) {
                    **f = v;
                    from += 8;
                }
            }
        }
        at += 4 + len as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_members_are_found_and_damage_is_an_error() {
        let mut b = b"PK\x03\x04".to_vec();
        b.extend_from_slice(&[0; 22]);
        b.extend_from_slice(&[1, 0, 0, 0]);
        b.extend_from_slice(b"xabc");
        let directory = b.len();
        b.extend_from_slice(b"PK\x01\x02");
        b.extend_from_slice(&[0; 16]);
        b.extend_from_slice(&[3, 0, 0, 0, 3, 0, 0, 0, 1, 0]);
        b.extend_from_slice(&[0; 16]);
        b.extend_from_slice(b"x");
        b.extend_from_slice(b"PK\x05\x06");
        b.extend_from_slice(&[0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
        b.extend_from_slice(&(directory as u32).to_le_bytes());
        b.extend_from_slice(&[0, 0]);
        assert_eq!(members(&b).expect("reads"), [("x".into(), b"abc".to_vec())]);
        for n in 0..b.len() {
            assert!(members(&b[..n]).is_err());
        }
        for i in 0..b.len() {
            let mut c = b.clone();
            c[i] ^= 0xff;
            let _ = members(&c);
        }
    }
}
