//! A range done in rounds: what a round does begins after everything of the round before is done.
//!
//! The threads stay together for all rounds, so a round costs a few atomic operations and not a start of the pool. A
//! thread waits for parts that others have claimed, and claimed parts run to their end without waiting; so any number
//! of threads, one alone included, gets through, and a thread may come late or not at all.
use super::{Job, Kind, Own, Pool, Spins};
use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Threads that take part, at most.
const MEMBERS: usize = 32;
/// Parts of a member in each round.
const PARTS: usize = 4;
/// Rounds that are counted at a time.
const SPAN: i64 = 1 << 30;

impl Pool {
    /// Calls `f` for parts that cover `0..extent`, in rounds of `round` steps (the last may be shorter): a part lies in
    /// one round, is cut at multiples of `grain` from the start of it, and begins after all parts of earlier rounds are
    /// done. A member keeps its parts from round to round, and with a part its mirror image in the round, as far as
    /// the others keep up: caches stay warm, even if every second round runs backwards over its data.
    pub fn run_rounds(&self, extent: i64, round: i64, grain: i64, f: Job<'_>) {
        if round <= 0 || round >= extent {
            return self.run(extent, grain, f);
        }
        let (rounds, grain) = (extent / round + i64::from(extent % round != 0), grain.max(1));
        let members =
            self.threads().min(MEMBERS).min(usize::try_from((round - 1) / grain + 1).unwrap_or(MEMBERS));
        if members < 2 {
            return f(0, extent);
        }
        match &self.kind {
            Kind::Own(own) => {
                for first in (0..rounds).step_by(SPAN as usize) {
                    let count = (rounds - first).min(SPAN) as u32;
                    own.team(&Team::new(first, count, [extent, round, grain], members, own.shared.spin), f);
                }
            }
            Kind::Foreign(_) => {
                for first in 0..rounds {
                    let lo = first * round;
                    let len = round.min(extent - lo);
                    self.run(len, grain, &|from, to| f(lo + from, lo + to));
                }
            }
        }
    }
}

impl Own {
    /// A thread that enters takes a number; one that gets a second number finds all done.
    fn team(&self, team: &Team, f: Job<'_>) {
        self.run(team.members as i64, 1, &|lo, hi| (lo..hi).for_each(|me| team.join(me as usize, f)));
    }
}

/// The parts that a member owns, on cache lines of their own: the number of rounds in which each has been claimed.
#[repr(align(128))]
struct Line([AtomicU32; PARTS]);

struct Team {
    lines: [Line; MEMBERS],
    /// Rounds that are done. Threads sleep on it.
    round: AtomicU32,
    sleepers: AtomicU32,
    /// Parts of the current round that are done.
    done: AtomicUsize,
    rounds: u32,
    members: usize,
    spin: bool,
    /// The round that counts as 0.
    first: i64,
    extent: i64,
    len: i64,
    grain: i64,
}

impl Team {
    fn new(first: i64, rounds: u32, [extent, len, grain]: [i64; 3], members: usize, spin: bool) -> Team {
        Team {
            lines: [const { Line([const { AtomicU32::new(0) }; PARTS]) }; MEMBERS],
            round: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            done: AtomicUsize::new(0),
            rounds,
            members,
            spin,
            first,
            extent,
            len,
            grain,
        }
    }

    fn join(&self, me: usize, f: Job<'_>) {
        loop {
            let round = self.round.load(Ordering::Acquire);
            if round == self.rounds {
                return;
            }
            let mut mine = 0;
            for owner in (me..self.members).chain(0..me) {
                for (k, claims) in self.lines[owner].0.iter().enumerate() {
                    // A round that is over has left a larger number behind.
                    let claim =
                        claims.compare_exchange(round, round + 1, Ordering::Relaxed, Ordering::Relaxed);
                    if claim.is_ok() {
                        self.part(round, owner, k, f);
                        mine += 1;
                    }
                }
            }
            let all = self.members * PARTS;
            if mine > 0 && self.done.fetch_add(mine, Ordering::AcqRel) + mine == all {
                self.done.store(0, Ordering::Relaxed);
                // Pairs with a thread that is about to sleep: it counts itself before it reads the round.
                self.round.store(round + 1, Ordering::SeqCst);
                if self.sleepers.load(Ordering::SeqCst) > 0 {
                    sys::futex_wake(&self.round, i32::MAX);
                }
            } else {
                self.wait(round);
            }
        }
    }

    /// Part `k` of a member: the first half of its parts counts from the start of the round, the other from the end.
    fn part(&self, round: u32, owner: usize, k: usize, f: Job<'_>) {
        let (half, all) = (PARTS / 2, self.members * PARTS);
        let at = if k < half { owner * half + k } else { all - PARTS - owner * half + k };
        let lo = (self.first + i64::from(round)) * self.len;
        let len = self.len.min(self.extent - lo);
        let units = len / self.grain + i64::from(len % self.grain != 0);
        // `units * i / all` in 64 bits: libraries have no support routines for wider division.
        let (whole, rest) = (units / all as i64, units % all as i64);
        let bound = |i: usize| whole * i as i64 + rest * i as i64 / all as i64;
        let cut = |i: usize| bound(i).saturating_mul(self.grain).min(len);
        let (from, to) = (cut(at), cut(at + 1));
        if from < to {
            f(lo + from, lo + to);
        }
    }

    fn wait(&self, round: u32) {
        let mut spins = Spins::new(self.spin);
        while self.round.load(Ordering::Acquire) == round {
            if !spins.again() {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                if self.round.load(Ordering::SeqCst) == round {
                    sys::futex_wait(&self.round, round);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::PoolHandle;
    use super::*;
    use alloc::vec::Vec;
    use core::sync::atomic::AtomicI64;
    use std::sync::Arc;

    /// Every step runs once, and finds all steps of earlier rounds done.
    fn in_rounds(pool: &Pool, extent: i64, round: i64, grain: i64) {
        let done: Vec<AtomicI64> = (0..extent).map(|_| AtomicI64::new(0)).collect();
        let finished = AtomicI64::new(0);
        pool.run_rounds(extent, round, grain, &|lo, hi| {
            for i in lo..hi {
                if round > 0 {
                    assert!(finished.load(Ordering::Relaxed) >= i / round * round, "step {i} is early");
                }
                assert_eq!(done[i as usize].fetch_add(1, Ordering::Relaxed), 0);
                finished.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(finished.load(Ordering::Relaxed), extent);
    }

    #[test]
    fn rounds_follow_each_other() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for (extent, round) in [(0, 4), (1, 1), (40, 4), (41, 4), (300, 100), (64, 1), (7, 9), (12, 0)] {
                for grain in [1, 3, 50] {
                    in_rounds(&pool, extent, round, grain);
                }
            }
        }
    }

    #[test]
    fn more_threads_than_processors_and_sleepers_get_through() {
        let pool = Pool::new(40);
        in_rounds(&pool, 20_000, 100, 1);
        let pool = Pool::new(2);
        pool.run_rounds(40, 4, 1, &|lo, _| {
            if lo % 4 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
    }

    #[test]
    fn callers_and_other_artifacts_share_a_pool() {
        let handle = PoolHandle::create(3);
        // SAFETY: the handle lives until it is destroyed below.
        let pool = Arc::new(unsafe { Pool::foreign(handle) }.expect("same version"));
        let own = Arc::new(Pool::new(2));
        std::thread::scope(|s| {
            for pool in [&pool, &pool, &own, &own] {
                s.spawn(move || (0..50).for_each(|i| in_rounds(pool, 200 + i, 8, 1)));
            }
        });
        drop(pool);
        // SAFETY: nobody uses it any more.
        unsafe { ((*handle).destroy)(handle) };
    }
}
