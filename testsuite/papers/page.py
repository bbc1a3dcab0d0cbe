"""docs/papers.md from figures."""
import pathlib
import platform

VERDICT = {True: "met", False: "**missed**", None: ""}


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    has = [text for flag, text in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_vnni", "VNNI")) if flag in flags]
    return f"{name} ({', '.join(has)})"


def write(path, figures, order):
    out = [
        "# Papers repeated",
        "",
        "Experiments of papers, run by `cargo xtask papers` with the commands that are listed. Errors are those of the ONNX file that was written, as ONNX Runtime",
        "runs it, on samples that neither training nor the choice of thresholds has seen. `$MNIST` is the folder that `testsuite/models/fetch.py mnist` prints.",
        "This page is written by `cargo xtask papers --update`; a verdict without a word is a figure that is only reported.",
        "",
    ]
    for name in [n for n in order if n in figures]:
        f = figures[name]
        out += [f"## {f['title']}", "", f"`cargo xtask papers {name}`: {f['paper']} {f['minutes']} minutes on {f['machine']}, {f['date']}.", ""]
        out += ["| figure | target | ours | verdict |", "|---|---|---|---|"]
        out += [f"| {r['what']} | {r['target']} | {r['ours']} | {VERDICT[r['ok']]} |" for r in f["rows"]]
        out += [""]
        for note in f["notes"]:
            out += [note, ""]
        out += ["```text", *f["commands"], "```", ""]
    path.write_text("\n".join(out))
