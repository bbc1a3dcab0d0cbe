#!/usr/bin/env python3
"""Experiments of papers, repeated with `planish` on the command line, and their figures beside those of the papers.

    papers.py --planish PATH [NAME..] [--full] [--short] [--report FILE] [--update]

Without names all experiments of the quick set; --full those that take an hour as well; --short the part of the quick set that tests
hold, in a minute. Errors of a model are those that ONNX Runtime makes with the file that was written, on samples that neither training
nor the choice of thresholds has seen. Figures go to FILE, and with --update into docs/papers.md. Ends with `N passed, N failed`: figures of accuracy,
sparsity and size are judged, time is not.
"""
import argparse
import datetime
import json
import pathlib
import sys
import tempfile
import time
import traceback

import page
from lab import ROOT, Lab
from experiments import EXPERIMENTS


def one(experiment, options, keep):
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="planish-papers-") as work:
        lab = Lab(options.planish, pathlib.Path(work), options.short)
        try:
            experiment.run(lab)
        except Exception as e:
            traceback.print_exc()
            lab.row("done", "yes", f"no: {e}"[:200], False)
    keep[experiment.name] = {
        "title": experiment.title,
        "paper": experiment.paper,
        "rows": lab.rows,
        "notes": lab.notes,
        "commands": lab.commands,
        "minutes": round((time.time() - started) / 60, 1),
        "date": datetime.date.today().isoformat(),
        "machine": page.machine(),
    }
    return lab.rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--planish", required=True)
    p.add_argument("names", nargs="*")
    p.add_argument("--full", action="store_true")
    p.add_argument("--short", action="store_true")
    p.add_argument("--report", type=pathlib.Path)
    p.add_argument("--update", action="store_true")
    o = p.parse_args()
    o.planish = str(pathlib.Path(o.planish).resolve())
    known = {e.name: e for e in EXPERIMENTS}
    unknown = [n for n in o.names if n not in known]
    if unknown:
        sys.exit(f"no experiment is called {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[n] for n in o.names] or [e for e in EXPERIMENTS if (e.short if o.short else o.full or not e.full)]
    where = ROOT / "docs" / "papers.json" if o.update else None
    keep = json.loads(where.read_text()) if where and where.exists() else {}
    passed = failed = 0
    for e in chosen:
        print(f"== {e.name}: {e.title}", flush=True)
        for row in one(e, o, keep):
            mark = {True: "ok", False: "FAILED", None: "-"}[row["ok"]]
            print(f"  {row['what']}: {row['ours']} ({row['target']}) {mark}", flush=True)
            passed += row["ok"] is True
            failed += row["ok"] is False
        print(f"  {keep[e.name]['minutes']} min", flush=True)
        if where:
            where.write_text(json.dumps(keep, indent=1) + "\n")
            page.write(ROOT / "docs" / "papers.md", keep, [e.name for e in EXPERIMENTS])
    if o.report:
        o.report.write_text(json.dumps(keep, indent=1) + "\n")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
