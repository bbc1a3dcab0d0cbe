use super::*;
use crate::artifact::exe::tests::{parts, weights};
use planish_rt::cpu::Isa;
use planish_testsuite::tools;
use std::process::Command;

fn model(name: &str) -> Vec<u8> {
    let mut w = Vec::new();
    weights(&mut w).expect("writes to memory");
    model_object(name, Arch::X86_64, &parts(400, Isa::Base), &[], &w).expect("object")
}

/// Two models, each with a session in each of four threads, all on one pool.
const PROGRAM: &str = r#"
#include "a.h"
#include "b.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
static planish_pool *pool;
static int use(const planish_model *m) {
    char e[200];
    planish_options o = {sizeof o, 0, pool, 0, 0};
    planish_session *s;
    int64_t n = 50;
    float x[50], y[50];
    planish_shape shape = {1, 1, &n};
    planish_buffer in = {x, sizeof x}, out = {y, sizeof y};
    if (m->abi != PLANISH_ABI || m->create(m, &o, &s, e, sizeof e)) return 1;
    if (m->bind(s, &shape, 1, e, sizeof e)) return 2;
    for (int k = 0; k < 100; k++) {
        for (int i = 0; i < 50; i++) x[i] = k;
        if (m->run(s, &in, 1, &out, 1, e, sizeof e)) return 3;
        for (int i = 0; i < 50; i++) if (y[i] != k + i + 1) return 4;
    }
    n = 101;
    if (m->bind(s, &shape, 1, e, sizeof e) != PLANISH_INPUT || !strstr(e, "1..=100")) return 5;
    m->destroy(s);
    return 0;
}
static void *thread(void *failed) {
    int r = use(planish_model_a());
    if (!r) r = use(planish_model_b_2());
    if (r) *(int *)failed = r;
    return 0;
}
int main(void) {
    pthread_t t[4];
    int failed[4] = {0};
    pool = planish_model_a()->pool_create(2);
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, thread, &failed[i]);
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    planish_model_a()->pool_destroy(pool);
    printf("%d %d %d %d %s\n", failed[0], failed[1], failed[2], failed[3], planish_model_b_2()->name);
    return 0;
}
"#;

fn ok(c: &mut Command) -> String {
    let o = c.output().unwrap_or_else(|e| panic!("{c:?}: {e}; `cargo xtask setup` installs what tests run"));
    assert!(o.status.success(), "{c:?}: {}", String::from_utf8_lossy(&o.stderr));
    String::from_utf8_lossy(&o.stdout).into_owned()
}

#[test]
fn models_link_statically_and_share_a_pool() {
    let dir = tempfile::tempdir().expect("folder");
    let d = dir.path();
    std::fs::write(d.join("main.c"), PROGRAM).expect("written");
    for name in ["a", "b 2"] {
        let id = identifier(name);
        std::fs::write(
            d.join(format!("lib{id}.a")),
            static_archive(name, Arch::X86_64, &model(name)).expect("archive"),
        )
        .expect("ok");
        std::fs::write(d.join(format!("{}.h", &id[..1])), header(name)).expect("written");
    }
    for extra in [&["-pie"][..], &["-static"]] {
        ok(Command::new("cc")
            .current_dir(d)
            .args(["-Wall", "-Werror", "main.c", "liba.a", "libb_2.a", "-lpthread", "-o", "main"])
            .args(extra));
        assert_eq!(ok(&mut Command::new(d.join("main"))), "0 0 0 0 add\n");
    }
}

/// What the runtime takes from the C library.
const LIBC: [&str; 23] = [
    "abort",
    "bcmp",
    "calloc",
    "clock_gettime",
    "close",
    "free",
    "malloc",
    "memcmp",
    "memcpy",
    "memmove",
    "memset",
    "mmap",
    "mprotect",
    "munmap",
    "open",
    "posix_memalign",
    "pthread_create",
    "pthread_join",
    "read",
    "realloc",
    "sched_getaffinity",
    "strlen",
    "syscall",
];

#[test]
fn shared_objects_export_one_function_and_load_together() {
    let dir = tempfile::tempdir().expect("folder");
    let d = dir.path();
    std::fs::write(d.join("main.c"), PROGRAM).expect("written");
    for name in ["a", "b 2"] {
        let id = identifier(name);
        let so = d.join(format!("lib{id}.so"));
        shared_object(name, Arch::X86_64, &model(name), &so).expect("links");
        std::fs::write(d.join(format!("{}.h", &id[..1])), header(name)).expect("written");
        let bytes = std::fs::read(&so).expect("file");
        let file = object::read::elf::ElfFile64::<Endianness>::parse(&*bytes).expect("ELF");
        use object::{Object as _, ObjectSymbol as _};
        let exported: Vec<&str> =
            file.dynamic_symbols().filter(|s| s.is_definition()).filter_map(|s| s.name().ok()).collect();
        assert_eq!(exported, [format!("planish_model_{id}")]);
        let needed: Vec<&str> =
            file.dynamic_symbols().filter(|s| s.is_undefined()).filter_map(|s| s.name().ok()).collect();
        let odd: Vec<&&str> = needed.iter().filter(|n| !n.is_empty() && !LIBC.contains(n)).collect();
        assert!(odd.is_empty(), "needs {odd:?}, which is not of the C library");
        assert!(!bytes.windows(6).any(|w| w == b"GLIBC_"), "names a version of the C library");
    }
    ok(Command::new("cc").current_dir(d).args([
        "main.c",
        "-L.",
        "-la",
        "-lb_2",
        "-lpthread",
        "-Wl,-rpath,$ORIGIN",
        "-o",
        "main",
    ]));
    assert_eq!(ok(&mut Command::new(d.join("main"))), "0 0 0 0 add\n");
    // The same bytes every time.
    let again = d.join("again.so");
    shared_object("a", Arch::X86_64, &model("a"), &again).expect("links");
    assert!(std::fs::read(&again).expect("file") == std::fs::read(d.join("liba.so")).expect("file"));
}

const SCRIPT: &str = r#"
import threading
import numpy as np, one, two
x = np.arange(50, dtype=np.float32)
want = x + np.arange(1, 51, dtype=np.float32)
assert np.array_equal(one.run(None, {"x": x})[0], want)
assert one.describe()["inputs"][0]["shape"] == ["n"]
pool = one.Pool(2)
failed = []
def use(module):
    try:
        m = module.Model(pool=pool)
        for k in range(100):
            assert np.array_equal(m.run(["y"], {"x": x[: 1 + k % 50]})[0], want[: 1 + k % 50])
    except BaseException as e:
        failed.append(e)
threads = [threading.Thread(target=use, args=(m,)) for m in (one, two) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not failed, failed
s = two.Model(states=[("y", "x")])
start = np.zeros(3, dtype=np.float32)
first = s.run(None, {"x": start})[0]
assert np.array_equal(s.run(None, {})[0], 2 * first)
for feeds, message in [({"x": x.astype(np.float64)}, "float32"), ({"z": x}, "no input"), ({}, "missing"),
                       ({"x": np.zeros(101, np.float32)}, "1..=100")]:
    try:
        one.run(None, feeds)
        raise SystemExit("accepted " + message)
    except ValueError as e:
        assert message in str(e), e
print("fine")
"#;

#[test]
fn python_modules_run_models_in_threads() {
    let dir = tempfile::tempdir().expect("folder");
    let d = dir.path();
    for name in ["one", "two"] {
        // Not `one.so`, which Python would take for an extension module and prefer to `one.py`.
        let so = format!("lib{name}.so");
        shared_object(name, Arch::X86_64, &model(name), &d.join(&so)).expect("links");
        std::fs::write(d.join(format!("{name}.py")), super::python(name, OsStr::new(&so))).expect("written");
    }
    assert_eq!(ok(Command::new(tools::python()).current_dir(d).args(["-B", "-c", SCRIPT])), "fine\n");
}

#[test]
fn names_become_identifiers() {
    assert_eq!(identifier("resnet-50 v1.5"), "resnet_50_v1_5");
    assert_eq!(identifier(""), "model");
    assert!(header("x").contains("const planish_model *planish_model_x(void);"));
    let py = python("a b", OsStr::new("lib\"q.so"));
    assert!(py.contains("_library.planish_model_a_b.restype") && py.contains(r#""lib\"q.so""#));
    assert!(!py.contains("@FUNCTION@") && !py.contains("@LIBRARY@"));
}
