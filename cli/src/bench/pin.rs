//! Where processes run: all things of a pair on the same processors, other ones in every turn.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// The processors that this process may use, if the system tells.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The processors of a turn: as many as there are threads, moving on from turn to turn. None if all are needed.
pub fn window(processors: &[usize], threads: usize, turn: usize) -> Option<Vec<usize>> {
    let n = processors.len();
    if threads == 0 || threads >= n {
        return None;
    }
    Some((0..threads).map(|i| processors[(turn * threads + i) % n]).collect())
}

/// Keeps all threads of a process on these processors. Where that is not allowed they run where they did.
pub fn process(id: u32, processors: &[usize]) {
    let mut set = CpuSet::new();
    processors.iter().filter(|p| **p < CpuSet::MAX_CPU).for_each(|p| set.set(*p));
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return };
    for thread in threads.flatten() {
        let id = thread.file_name().to_str().and_then(|t| t.parse::<i32>().ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // Refused under some containers, and for a thread that has just ended.
            let _ = sched_setaffinity(Some(id), &set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_move_over_the_processors() {
        let p = [0, 2, 4];
        assert_eq!(window(&p, 1, 0), Some(vec![0]));
        assert_eq!(window(&p, 1, 4), Some(vec![2]));
        assert_eq!(window(&p, 2, 1), Some(vec![4, 0]));
        assert_eq!((window(&p, 3, 0), window(&[], 1, 0), window(&p, 0, 0)), (None, None, None));
        assert!(!allowed().is_empty());
    }
}
