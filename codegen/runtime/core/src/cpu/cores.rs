//! How many processors work may use: those of the affinity mask, as far as the control groups grant time on them.
use crate::sys;

/// The processors that work may run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cores {
    /// Logical processors allowed by the affinity mask.
    pub logical: usize,
    /// Physical cores among them.
    pub physical: usize,
    /// Processors' worth of time that the control groups grant, rounded down but at least 1; `usize::MAX` without a
    /// quota. Threads beyond it would use up each period before its end and then stand still for the rest.
    pub quota: usize,
}

impl Cores {
    /// The number of threads to use unless told otherwise, >= 1.
    pub fn threads(&self) -> usize {
        self.physical.min(self.quota).max(1)
    }

    /// Whether `threads` threads may wait by spinning: each has a processor, and the quota has time for all of them.
    pub fn may_spin(&self, threads: usize) -> bool {
        threads <= self.logical && threads <= self.quota
    }
}

/// The processors of the calling thread.
pub fn cores() -> Cores {
    let mask = sys::affinity();
    let logical = mask.iter().map(|w| w.count_ones() as usize).sum::<usize>().max(1);
    let mut physical = 0;
    for cpu in 0..mask.len() * 64 {
        let allowed = |c: usize| mask.get(c / 64).is_some_and(|w| w >> (c % 64) & 1 == 1);
        if allowed(cpu) && first_sibling(cpu, allowed).is_none_or(|first| first == cpu) {
            physical += 1;
        }
    }
    let mut text = [0; 4096];
    let groups = sys::read_file(c"/proc/self/cgroup", &mut text).unwrap_or(0);
    let quota = quota(b"/sys/fs/cgroup", &text[..groups]);
    Cores { logical, physical: physical.clamp(1, logical), quota }
}

/// The first processor allowed among those that share a core with `cpu`.
fn first_sibling(cpu: usize, allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let mut path = Path::of(&[b"/sys/devices/system/cpu/cpu"]);
    path.number(cpu);
    path.push(b"/topology/thread_siblings_list");
    let mut buf = [0; 256];
    let n = sys::read_file(path.finish()?, &mut buf)?;
    parse_list(&buf[..n]).filter(|&c| allowed(c)).min()
}

/// The numbers of a list such as `0-3,8`.
fn parse_list(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    text.split(|&b| b == b',')
        .filter_map(|part| {
            let mut ends = part.split(|&b| b == b'-').map(number);
            let first = ends.next()??;
            Some(first..=ends.next().flatten().unwrap_or(first).min(first + 4096))
        })
        .flatten()
}

fn number(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// A path built without allocation.
struct Path {
    bytes: [u8; 512],
    len: usize,
}

impl Default for Path {
    fn default() -> Self {
        Path { bytes: [0; 512], len: 0 }
    }
}

impl Path {
    fn push(&mut self, part: &[u8]) {
        let end = self.len.saturating_add(part.len());
        if end < self.bytes.len() {
            self.bytes[self.len..end].copy_from_slice(part);
        }
        // A path that is too long stays so, and `finish` refuses it.
        self.len = end;
    }

    fn of(parts: &[&[u8]]) -> Path {
        let mut path = Path::default();
        parts.iter().for_each(|p| path.push(p));
        path
    }

    fn number(&mut self, n: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = n;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn finish(&self) -> Option<&core::ffi::CStr> {
        core::ffi::CStr::from_bytes_with_nul(self.bytes.get(..=self.len)?).ok()
    }
}

/// The smallest quota of the groups that `groups` (the text of `/proc/self/cgroup`) names, and of those around them, in
/// processors rounded down. Both versions of control groups, mounted below `root` in the usual places; a container
/// may see its own group as the root while the text names it as seen from outside, so all ancestors are looked at.
fn quota(root: &[u8], groups: &[u8]) -> usize {
    let mut best = usize::MAX;
    // Where the text cannot be read the roots still may tell.
    for line in groups.split(|&b| b == b'\n').chain([&b"0::/"[..], b"1:cpu:/"]) {
        let mut fields = line.splitn(3, |&b| b == b':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let unified = controllers.is_empty();
        let mounts: [&[u8]; 2] = match unified {
            true => [b"", b"/unified"],
            false if controllers.split(|&b| b == b',').any(|c| c == b"cpu") => [b"/cpu", b"/cpu,cpuacct"],
            false => continue,
        };
        for mount in mounts {
            let mut group = group.strip_suffix(b"/").unwrap_or(group);
            loop {
                best = best.min(granted(&[root, mount, group], unified).unwrap_or(usize::MAX));
                match group.iter().rposition(|&b| b == b'/') {
                    Some(at) => group = &group[..at],
                    None => break,
                }
            }
        }
    }
    best
}

/// The processors that one group grants; `None` without a limit.
fn granted(folder: &[&[u8]; 3], unified: bool) -> Option<usize> {
    let mut text = [0; 64];
    let mut read = |name: &[u8]| -> Option<[Option<usize>; 2]> {
        let path = Path::of(&[folder[0], folder[1], folder[2], name]);
        let n = sys::read_file(path.finish()?, &mut text)?;
        let mut words = text[..n].split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty()).map(number);
        Some([words.next().flatten(), words.next().flatten()])
    };
    let (quota, period) = match unified {
        // `150000 100000` or `max 100000`.
        true => read(b"/cpu.max")?.into(),
        // `-1` is no limit.
        false => (read(b"/cpu.cfs_quota_us")?[0], read(b"/cpu.cfs_period_us")?[0]),
    };
    match (quota?, period?) {
        (_, 0) => None,
        (quota, period) => Some((quota / period).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::path::PathBuf;

    /// A folder with these files in it, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(std::format!("planish-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
                std::fs::write(path, text).expect("a file");
            }
            Tree(root)
        }

        fn quota(&self, groups: &str) -> usize {
            quota(self.0.as_os_str().as_encoded_bytes(), groups.as_bytes())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            // What is left behind in a temporary folder harms nobody.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lists_parse() {
        assert_eq!(parse_list(b"0-2,8\n").collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert_eq!(parse_list(b"").count(), 0);
    }

    #[test]
    fn quotas_of_version_two_count_with_all_ancestors() {
        let tree = Tree::new(
            "quota-v2",
            &[
                ("a/cpu.max", "350000 100000\n"),
                ("a/b/cpu.max", "max 100000\n"),
                ("a/b/c/cpu.max", "450000 100000\n"),
                ("half/cpu.max", "50000 100000\n"),
                ("more/cpu.max", "150000 100000\n"),
                ("odd/cpu.max", "150000 0\n"),
                ("empty/cpu.max", ""),
            ],
        );
        assert_eq!(tree.quota("0::/a/b/c\n"), 3);
        assert_eq!(tree.quota("0::/a/b\n"), 3);
        assert_eq!(tree.quota("0::/half\n"), 1);
        assert_eq!(tree.quota("0::/more\n"), 1);
        for none in ["0::/\n", "0::/odd\n", "0::/empty\n", "0::/absent\n", "", "nothing", "1:cpu:/a\n"] {
            assert_eq!(tree.quota(none), usize::MAX, "{none:?}");
        }
    }

    #[test]
    fn quotas_of_version_one_count_where_the_controller_is_mounted() {
        let tree = Tree::new(
            "quota-v1",
            &[
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("cpu/g/cpu.cfs_quota_us", "250000\n"),
                ("cpu/g/cpu.cfs_period_us", "100000\n"),
                ("cpu,cpuacct/h/cpu.cfs_quota_us", "40000\n"),
                ("cpu,cpuacct/h/cpu.cfs_period_us", "10000\n"),
                ("cpuset/g/cpu.cfs_quota_us", "100000\n"),
                ("cpuset/g/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(tree.quota("9:memory:/x\n3:cpuset:/g\n1:cpu:/g\n0::/\n"), 2);
        assert_eq!(tree.quota("4:cpu,cpuacct:/h/i\n"), 4);
        assert_eq!(tree.quota("1:cpu:/\n"), usize::MAX);
        assert_eq!(tree.quota("3:cpuset:/g\n"), usize::MAX);
    }

    #[test]
    fn a_container_finds_its_quota_at_the_root() {
        let tree = Tree::new(
            "quota-container",
            &[("cpu/cpu.cfs_quota_us", "150000\n"), ("cpu/cpu.cfs_period_us", "100000\n")],
        );
        assert_eq!(tree.quota("1:cpu:/docker/0123\n"), 1);
        assert_eq!(tree.quota(""), 1);
        let hybrid = Tree::new("quota-hybrid", &[("unified/s/cpu.max", "200000 100000\n")]);
        assert_eq!(hybrid.quota("0::/s\n"), 2);
    }

    #[test]
    fn threads_and_spinning_keep_to_cores_and_quota() {
        let cores = |logical, physical, quota| Cores { logical, physical, quota };
        for (c, threads) in [
            (cores(8, 4, usize::MAX), 4),
            (cores(8, 4, 3), 3),
            (cores(2, 2, 1), 1),
            (cores(1, 1, usize::MAX), 1),
            (cores(2, 2, 64), 2),
        ] {
            assert_eq!(c.threads(), threads, "{c:?}");
            assert!(c.may_spin(c.threads()), "{c:?}");
        }
        // Asked for more than that: the threads sleep while they wait.
        assert!(!cores(2, 2, 1).may_spin(2));
        assert!(!cores(8, 4, 3).may_spin(4));
        assert!(cores(8, 4, usize::MAX).may_spin(8));
        assert!(!cores(8, 4, usize::MAX).may_spin(9));
    }

    #[test]
    fn the_caller_is_counted() {
        let c = cores();
        assert!(c.threads() >= 1 && c.physical <= c.logical);
        assert!(c.may_spin(1));
        assert!(!c.may_spin(c.logical + 1));
    }
}
