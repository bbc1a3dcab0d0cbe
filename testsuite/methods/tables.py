"""Figures as Markdown, and their places in README.md and docs/methods.md: between `<!-- methods: NAME -->` and `<!-- end -->`."""
import re

COMMAND = "cargo xtask bench methods"


def times(value, interval=True):
    """A speed-up."""
    if value is None:
        return "-"
    mid, low, high = value
    return f"{mid:.2f}" if low is None or not interval else f"{mid:.2f} ({low:.2f}..{high:.2f})"


def ms(row):
    return f"{row['ms']:.3g}" if "ms" in row else "-"


def plain(record):
    """Where the figures come from."""
    clock = "" if record["clock"] == "wall" else ", processor time"
    return (f"{record['machine']}, 1 thread, {record['rounds']} rounds in turn{clock}, {record['date']}, {record['planish']}, ONNX Runtime {record['onnxruntime']}; "
            f"`{COMMAND} --only {record['name']}`")


def command(row):
    return " ".join(f"'{a}'" if any(c in a for c in "|^$ ") else a for a in row.get("arguments", ()))


def real(record):
    lost = "" if record["measured"] else " (a proxy: no labels)"
    lines = [f"**{record['name']}**, {record['title']}: {record['data']}. {record['measure'].capitalize()}{lost}. {plain(record)}.", "",
             f"| way | {record['measure']} | ms | over own f32 | over ONNX Runtime f32 | over its i8 |", "|---|---:|---:|---:|---:|---:|"]
    for row in record["rows"]:
        if "ms" not in row:
            continue
        marks = "**" if row["name"] == record["best"] else ""
        own = times(row["over_own"]) if row["ours"] else "-"
        eight = times(row["over_ort8"]) if record["ort8"] else "-"
        lines.append(f"| {marks}{row['name']}{marks} | {row['score']:.2f} | {ms(row)} | {own} | {times(row['over_ort'])} | {eight} |")
    lines += remarks(record)
    best = next((r for r in record["rows"] if r["name"] == record["best"]), None)
    if best is not None and best.get("arguments"):
        samples = f"; `samples`: {record['seen']} that are not judged" if "--data" in best["arguments"] else ""
        lines += ["", f"The best that loses at most {record['allowed']:g} point: `planish compile {record['name']}.onnx -o OUT {' '.join([*record['shapes'], command(best)])}`{samples}."]
    return lines


def remarks(record):
    reasons = {}
    for row in record["rows"]:
        if "why" in row:
            reasons.setdefault(row["why"], []).append(row["name"])
    out = [f"- {', '.join(names)}: {why}" for why, names in reasons.items()]
    for row in record["rows"]:
        more = ", ".join(f"{k} {v:.2f}" for k, v in row.get("more", {}).items())
        if more and row["name"] in ("f32", record.get("best"), record.get("ort8")):
            out.append(f"- {row['name']}: {more}")
        if row.get("excluded"):
            out.append(f"- {row['name']}: {len(row['excluded'])} left out, {row['layers']} in 8 bits")
    return ["", *out] if out else []


def random(record):
    better = "our own dense f32" if record["better"] == "f32" else "ONNX Runtime f32"
    lines = [f"**{record['name']}**, {record['title']}, random weights: accuracy means nothing here. The better f32 is {better}. {plain(record)}.", "",
             "| way | ms | over the better f32 | over own f32 | over ONNX Runtime f32 | over its i8 |", "|---|---:|---:|---:|---:|---:|"]
    for row in record["rows"]:
        if "ms" not in row:
            continue
        lines.append(f"| {row['name']} | {ms(row)} | " + " | ".join(times(row.get(k)) for k in ("over_better", "over_own", "over_ort", "over_ort8")) + " |")
    return lines + remarks(record)


def zeros(record):
    ours = next(r for r in record["rows"] if r["ours"])
    return [f"The same made by numpy in paraphrase-MiniLM-L3 (nine of ten 1x16 blocks of {record['layers']} layers), compiled without an option: "
            f"{times(ours['over_ort'])} times as fast as ONNX Runtime f32 on the same file, with equal results. {plain(record)}."]


def full(record):
    return {"real": real, "random": random, "zeros": zeros}[record["kind"]](record) + [""]


def top(kept):
    """The table that opens the README."""
    records = [r for r in kept.values() if r["kind"] == "real"]
    lines = ["| model, data | best way found without training | from | to | ms | over ONNX Runtime f32 | over ONNX Runtime i8 |", "|---|---|---:|---:|---:|---:|---:|"]
    for record in records:
        rows = {r["name"]: r for r in record["rows"]}
        best, theirs = rows.get(record["best"]), rows.get(record["ort8"])
        if best is None:
            lines.append(f"| {record['name']}: {record['data']} | none | | | | | |")
            continue
        eight = record.get("ort8_why", "it cannot") if theirs is None else f"{times(best['over_ort8'])}, at {theirs['score']:.1f}"
        lines.append(f"| {record['name']}: {record['data']}, {record['measure']} | {best['name']} | {rows['onnxruntime f32']['score']:.1f} | {best['score']:.1f} | {ms(best)} | "
                     f"{times(best['over_ort'])} | {eight} |")
    first = records[0]
    lines += ["", f"Each loses at most {first['allowed']:g} point; below 1 is slower. Of ONNX Runtime's own 8-bit models the fastest that loses as little, or else the fastest; its accuracy is behind the figure. "
              f"{first['machine']}, 1 thread, rounds in turn{'' if first['clock'] == 'wall' else ', processor time'}, 95% intervals, {first['date']}, ONNX Runtime {first['onnxruntime']}; `{COMMAND}`."]
    return lines


def put(text, name, lines):
    """`lines` in place of what stood between the marks of `name`."""
    pattern = re.compile(rf"(<!-- methods: {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
    return pattern.sub(lambda m: f"{m[1]}\n" + "\n".join(lines).strip() + f"\n\n{m[2]}", text)


def update(root, kept):
    readme, page = root / "README.md", root / "docs/methods.md"
    if any(r["kind"] == "real" for r in kept.values()):
        readme.write_text(put(readme.read_text(), "table", top(kept)))
    text = page.read_text()
    for name, record in kept.items():
        text = put(text, name, full(record))
    page.write_text(text)
