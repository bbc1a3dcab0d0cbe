//! A small pool of threads that shares out one range at a time.
//!
//! The calling thread works too, so a pool of `n` threads starts `n - 1`. Each thread owns the same part of every range,
//! so that it finds in its cache what it wrote before, and claims it in chunks; one that has done its own takes chunks of
//! the others, so a thread that is delayed does not stall them. Between ranges that follow closely the threads spin, if every thread has a
//! processor and the quota allows it, and then sleep in a futex.
mod rounds;

use crate::cpu::{self, FlushGuard};
use crate::sys;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Threads of a pool, at most.
const MOST: usize = 1024;
/// How long a thread spins before it sleeps.
const SPIN_NS: u64 = 100_000;
/// Chunks that the part of a thread is cut into, if the grain allows it.
const CHUNKS: i64 = 4;

type Job<'a> = &'a (dyn Fn(i64, i64) + Sync);

struct Shared {
    /// Changes when there is a new range, and at the end. Threads sleep on it.
    epoch: AtomicU32,
    stop: AtomicBool,
    /// The job: a pointer to a `Job` on the stack of the caller, who waits for all threads to leave it.
    job: AtomicPtr<c_void>,
    extent: AtomicI64,
    grain: AtomicI64,
    /// Grains of a chunk.
    chunk: AtomicI64,
    /// What each thread owns of the range, the caller first.
    shares: Box<[Share]>,
    /// Threads that have taken a share.
    members: AtomicUsize,
    /// Whether the job may be joined.
    open: AtomicBool,
    /// Threads that have joined the job or are about to ask whether they may. The caller sleeps on it.
    active: AtomicU32,
    sleepers: AtomicU32,
    caller_sleeps: AtomicBool,
    spin: bool,
}

/// A part of a range in grains, on a cache line of its own.
#[repr(align(128))]
struct Share {
    next: AtomicI64,
    end: AtomicI64,
}

/// Threads that sessions share.
pub struct Pool {
    kind: Kind,
}

enum Kind {
    Own(Own),
    Foreign(*const PoolHandle),
}

// SAFETY: a foreign handle is used through its function only, which any thread may call.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

struct Own {
    shared: Box<Shared>,
    threads: Vec<sys::Thread>,
    busy: AtomicBool,
}

/// A part of a range, for callers in another artifact.
type Part = extern "C" fn(*const c_void, i64, i64);

/// `planish_pool`: a pool that another artifact in the process, with a runtime of its own, can use. What it calls is
/// the code of the artifact that made it.
#[repr(C)]
pub struct PoolHandle {
    version: u32,
    threads: u32,
    run: unsafe extern "C" fn(*const PoolHandle, i64, i64, Part, *const c_void),
    pub(crate) destroy: unsafe extern "C" fn(*mut PoolHandle),
    pool: Pool,
}

const HANDLE_VERSION: u32 = 1;

impl core::fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PoolHandle({} threads)", self.threads)
    }
}

impl PoolHandle {
    /// A pool behind a handle, to be destroyed through the handle.
    pub fn create(threads: usize) -> *mut PoolHandle {
        let pool = Pool::new(threads);
        let threads = pool.threads() as u32;
        Box::into_raw(Box::new(PoolHandle {
            version: HANDLE_VERSION,
            threads,
            run: run_foreign,
            destroy,
            pool,
        }))
    }
}

unsafe extern "C" fn run_foreign(
    h: *const PoolHandle,
    extent: i64,
    grain: i64,
    f: Part,
    data: *const c_void,
) {
    let data = data as usize;
    // SAFETY: the handle is live, and `f` may be called with `data` from any thread until this returns.
    unsafe { (*h).pool.run(extent, grain, &|lo, hi| f(data as *const c_void, lo, hi)) }
}

unsafe extern "C" fn destroy(h: *mut PoolHandle) {
    // SAFETY: the handle came from `create` and is not used afterwards.
    drop(unsafe { Box::from_raw(h) });
}

extern "C" fn call_job(data: *const c_void, lo: i64, hi: i64) {
    // SAFETY: `data` is the job that `Pool::run` passed on; it lives until that returns.
    let f = unsafe { *data.cast::<Job<'_>>() };
    f(lo, hi);
}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included. Fewer if the system refuses to start them.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, MOST);
        let shared = Box::new(Shared::new(threads));
        let arg = (&raw const *shared).cast_mut().cast();
        let mut handles = Vec::new();
        for _ in 1..threads {
            // SAFETY: the shared state outlives the threads: `drop` joins them first.
            match unsafe { sys::spawn(worker, arg) } {
                Some(t) => handles.push(t),
                None => break,
            }
        }
        Pool { kind: Kind::Own(Own { shared, threads: handles, busy: AtomicBool::new(false) }) }
    }

    /// A pool that uses the threads of another one, which may belong to another artifact in this process.
    ///
    /// # Safety
    /// The handle came from a function `pool_create` and lives longer than this object.
    pub unsafe fn foreign(handle: *const PoolHandle) -> crate::error::Result<Pool> {
        // SAFETY: the version comes first in all versions.
        let version = unsafe { (*handle).version };
        if version != HANDLE_VERSION {
            crate::error::fail!(Input, "the pool has version {version}, this model needs {HANDLE_VERSION}");
        }
        Ok(Pool { kind: Kind::Foreign(handle) })
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        match &self.kind {
            Kind::Own(o) => o.threads.len() + 1,
            // SAFETY: `foreign` requires the handle to be live.
            Kind::Foreign(h) => unsafe { (**h).threads as usize },
        }
    }

    /// Calls `f` for parts that cover `0..extent`, cut at multiples of `grain` (>= 1), and returns when all are done.
    /// While another caller uses the pool, the calling thread does everything.
    pub fn run(&self, extent: i64, grain: i64, f: Job<'_>) {
        match &self.kind {
            Kind::Own(o) => o.run(extent, grain, f),
            // SAFETY: the handle is live, and the job lives until the call returns.
            Kind::Foreign(h) => unsafe { ((**h).run)(*h, extent, grain, call_job, (&raw const f).cast()) },
        }
    }
}

impl Own {
    fn run(&self, extent: i64, grain: i64, f: Job<'_>) {
        if extent <= 0 {
            return;
        }
        let threads = self.threads.len() as i64 + 1;
        if extent <= grain || threads == 1 || self.busy.swap(true, Ordering::Acquire) {
            f(0, extent);
            return;
        }
        let s = &*self.shared;
        let units = extent / grain + i64::from(extent % grain != 0);
        let (own, more) = (units / threads, units % threads);
        let mut first = 0;
        for (t, share) in s.shares.iter().take(threads as usize).enumerate() {
            share.next.store(first, Ordering::Relaxed);
            first += own + i64::from((t as i64) < more);
            share.end.store(first, Ordering::Relaxed);
        }
        s.extent.store(extent, Ordering::Relaxed);
        s.grain.store(grain, Ordering::Relaxed);
        s.chunk.store(own / CHUNKS + i64::from(own % CHUNKS != 0 || own == 0), Ordering::Relaxed);
        s.job.store((&raw const f).cast_mut().cast(), Ordering::Relaxed);
        s.open.store(true, Ordering::SeqCst);
        // Pairs with the check of a thread that is about to sleep: it counts itself before it reads the epoch.
        s.epoch.fetch_add(1, Ordering::SeqCst);
        if s.sleepers.load(Ordering::SeqCst) > 0 {
            sys::futex_wake(&s.epoch, i32::MAX);
        }
        s.work(0, f);
        // A thread that has not joined by now finds the job closed: nothing waits for a thread to wake up.
        s.open.store(false, Ordering::SeqCst);
        s.wait_for_workers();
        self.busy.store(false, Ordering::Release);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        sys::futex_wake(&self.shared.epoch, i32::MAX);
        for &t in &self.threads {
            sys::join(t);
        }
    }
}

impl Shared {
    fn new(threads: usize) -> Shared {
        Shared {
            epoch: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            job: AtomicPtr::new(core::ptr::null_mut()),
            extent: AtomicI64::new(0),
            grain: AtomicI64::new(1),
            chunk: AtomicI64::new(1),
            shares: (0..threads).map(|_| Share { next: AtomicI64::new(0), end: AtomicI64::new(0) }).collect(),
            members: AtomicUsize::new(1),
            open: AtomicBool::new(false),
            active: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            caller_sleeps: AtomicBool::new(false),
            spin: cpu::cores().may_spin(threads),
        }
    }

    /// Does chunks of the share `me`, then of the others.
    fn work(&self, me: usize, f: Job<'_>) {
        let (extent, grain) = (self.extent.load(Ordering::Relaxed), self.grain.load(Ordering::Relaxed));
        let chunk = self.chunk.load(Ordering::Relaxed);
        let (before, after) = self.shares.split_at(me);
        for share in after.iter().chain(before) {
            let end = share.end.load(Ordering::Relaxed);
            loop {
                let lo = share.next.fetch_add(chunk, Ordering::Relaxed);
                // A range that reaches the largest number makes the sum wrap.
                if lo >= end || lo < 0 {
                    break;
                }
                let hi = lo.saturating_add(chunk).min(end);
                f(lo * grain, hi.saturating_mul(grain).min(extent));
            }
        }
    }

    fn wait_for_workers(&self) {
        let mut spins = Spins::new(self.spin);
        loop {
            let left = self.active.load(Ordering::SeqCst);
            if left == 0 {
                return;
            }
            if !spins.again() {
                self.caller_sleeps.store(true, Ordering::SeqCst);
                let left = self.active.load(Ordering::SeqCst);
                if left != 0 {
                    sys::futex_wait(&self.active, left);
                }
                self.caller_sleeps.store(false, Ordering::SeqCst);
            }
        }
    }
}

/// Waiting by spinning, for a limited time.
struct Spins {
    allowed: bool,
    count: u32,
    until: u64,
}

impl Spins {
    fn new(allowed: bool) -> Self {
        Spins { allowed, count: 0, until: 0 }
    }

    /// Waits a moment. `false` when it is time to sleep.
    fn again(&mut self) -> bool {
        if !self.allowed {
            return false;
        }
        core::hint::spin_loop();
        self.count += 1;
        if !self.count.is_multiple_of(256) {
            return true;
        }
        let now = sys::now_ns();
        if self.until == 0 {
            self.until = now + SPIN_NS;
        }
        now < self.until
    }
}

extern "C" fn worker(arg: *mut c_void) -> *mut c_void {
    // SAFETY: `arg` is the shared state, which lives until this thread is joined.
    let s = unsafe { &*arg.cast::<Shared>() };
    let _flush = FlushGuard::new();
    let me = s.members.fetch_add(1, Ordering::Relaxed);
    let mut seen = 0u32;
    loop {
        let mut spins = Spins::new(s.spin);
        let mut now = s.epoch.load(Ordering::Acquire);
        while now == seen {
            if !spins.again() {
                s.sleepers.fetch_add(1, Ordering::SeqCst);
                if s.epoch.load(Ordering::SeqCst) == seen {
                    sys::futex_wait(&s.epoch, seen);
                }
                s.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            now = s.epoch.load(Ordering::Acquire);
        }
        seen = now;
        if s.stop.load(Ordering::SeqCst) {
            return core::ptr::null_mut();
        }
        s.active.fetch_add(1, Ordering::SeqCst);
        if s.open.load(Ordering::SeqCst) {
            // SAFETY: the job was open after this thread was counted, so its caller, who closes it and then waits
            // until nobody is counted, keeps it alive until the decrement below.
            let f = unsafe { *s.job.load(Ordering::Relaxed).cast::<Job<'_>>() };
            s.work(me, f);
        }
        if s.active.fetch_sub(1, Ordering::SeqCst) == 1 && s.caller_sleeps.load(Ordering::SeqCst) {
            sys::futex_wake(&s.active, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn covers(pool: &Pool, extent: i64, grain: i64) {
        let hits: Vec<AtomicU32> = (0..extent.max(0)).map(|_| AtomicU32::new(0)).collect();
        pool.run(extent, grain, &|lo, hi| {
            assert!(lo < hi && lo % grain == 0 && (hi == extent || hi % grain == 0));
            for i in lo..hi {
                hits[i as usize].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "extent {extent} grain {grain}");
    }

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for extent in [0, 1, 2, 7, 64, 1000] {
                for grain in [1, 3, 64, 2000] {
                    covers(&pool, extent, grain);
                }
            }
        }
    }

    #[test]
    fn a_thread_alone_does_the_shares_of_all_in_order_from_its_own() {
        let share = |next, end| Share { next: AtomicI64::new(next), end: AtomicI64::new(end) };
        let shared = Shared { shares: Box::new([share(0, 3), share(3, 7), share(7, 8)]), ..Shared::new(1) };
        shared.extent.store(15, Ordering::Relaxed);
        shared.grain.store(2, Ordering::Relaxed);
        shared.chunk.store(2, Ordering::Relaxed);
        let seen = std::sync::Mutex::new(Vec::new());
        shared.work(1, &|lo, hi| seen.lock().expect("no panic").push((lo, hi)));
        let seen = seen.into_inner().expect("no panic");
        assert_eq!(seen, [(6, 10), (10, 14), (14, 15), (0, 4), (4, 6)]);
    }

    #[test]
    fn threads_wake_after_sleeping() {
        let pool = Pool::new(3);
        for _ in 0..5 {
            covers(&pool, 100, 1);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    #[test]
    fn a_pool_of_another_artifact_is_used_through_its_handle() {
        let handle = PoolHandle::create(3);
        // SAFETY: the handle lives until it is destroyed below.
        let pools =
            unsafe { [Pool::foreign(handle).expect("same version"), Pool::foreign(handle).expect("same")] };
        assert_eq!(pools[0].threads(), 3);
        std::thread::scope(|s| {
            for p in &pools {
                s.spawn(move || (0..50).for_each(|i| covers(p, 100 + i, 3)));
            }
        });
        drop(pools);
        // SAFETY: nobody uses it any more.
        unsafe { ((*handle).destroy)(handle) };
    }

    #[test]
    fn callers_share_a_pool() {
        let pool = Arc::new(Pool::new(2));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                std::thread::spawn(move || (0..200).for_each(|i| covers(&pool, 50 + i, 4)))
            })
            .collect();
        for c in callers {
            c.join().expect("no panic");
        }
    }

    #[test]
    fn a_range_at_the_end_of_the_integers_ends() {
        let pool = Pool::new(2);
        let parts = [AtomicU32::new(0)];
        pool.run(i64::MAX, i64::MAX / 3, &|_, _| {
            parts[0].fetch_add(1, Ordering::Relaxed);
        });
        assert!(parts[0].load(Ordering::Relaxed) >= 3);
    }
}
