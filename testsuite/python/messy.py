#!/usr/bin/env python3
"""A model and its export with everything that exporters add, after `planish optimize`: the second may keep at most a
tenth more nodes than the first. Ends with `N passed, N failed`.

    messy.py --planish PATH
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import model_cases as mc

# (a plain export, the same network with what exporters leave behind)
PAIRS = [("resnet50-thin", "resnet50-thin-messy")]
LIMIT = 1.1


def nodes(planish, name, folder):
    """Nodes of a model before and after the passes."""
    cmd = [planish, "optimize", mc.model_path(name), "-o", folder / f"{name}.onnx", "--no-check", "--format", "json"]
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{name}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    report = json.loads(done.stdout)
    return report["nodes_before"], report["nodes_after"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--planish", required=True, type=pathlib.Path)
    planish = ap.parse_args().planish.resolve()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="planish-messy-") as folder:
        for plain, messy in PAIRS:
            (_, want), (before, have) = (nodes(planish, name, pathlib.Path(folder)) for name in (plain, messy))
            # Were the second as small from the start, nothing would be shown.
            ok = have <= LIMIT * want < before
            failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {messy}: {before} -> {have} nodes, {plain}: {want} (at most {LIMIT:g} times that)")
    print(f"{len(PAIRS) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
