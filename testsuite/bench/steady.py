"""Whether the cores are all there: virtual ones may share a physical one, or have less than their time, for minutes.

A figure with several threads means little then, and ratios of runtimes that use a core differently least of all. `Cores(n).share()`
is what n processes compute together over n times what one computes alone, `Cores(n).wait(share, seconds)` waits for a share.
"""
import subprocess
import sys
import time

WORKER = """
import os, sys, time
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
import numpy as np
a = np.full((192, 192), 1e-3, np.float32)
print("ready", flush=True)
for line in sys.stdin:
    end, n = time.perf_counter() + float(line), 0
    while time.perf_counter() < end:
        a @ a
        n += 1
    print(n, flush=True)
"""
SLICE = 0.05


class Cores:
    def __init__(self, n):
        command = [sys.executable, "-c", WORKER]
        self.workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n)]
        for w in self.workers:
            w.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for w in self.workers:
            w.stdin.close()
            w.wait()

    def count(self, workers):
        for w in workers:
            w.stdin.write(f"{SLICE}\n")
            w.stdin.flush()
        return sum(int(w.stdout.readline()) for w in workers)

    def share(self):
        alone = max(self.count(self.workers[:1]) for _ in range(2))
        return max(self.count(self.workers) for _ in range(2)) / (len(self.workers) * alone)

    def wait(self, share, seconds):
        """(the share at the end, seconds waited)"""
        start = time.monotonic()
        while True:
            now = self.share()
            waited = time.monotonic() - start
            if now >= share or waited >= seconds:
                return now, waited
            time.sleep(2)


if __name__ == "__main__":
    with Cores(int(sys.argv[1])) as cores:
        while True:
            print(f"{time.strftime('%H:%M:%S')} {cores.share():.2f}", flush=True)
            time.sleep(float(sys.argv[2]))
