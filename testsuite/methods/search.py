"""Which layers to leave in f32: one after the other in 8 bits alone, then the worst left out, as few as the samples allow."""
import re
import time

import numpy as np

from sides import Failed

ENOUGH = 0.5  # points that may be lost on the samples of the search


def noise(outputs, references):
    """Share of the energy that is error, of all outputs of floats together."""
    error = energy = 0.0
    for got, wanted in zip(outputs, references):
        for a, b in zip(got, wanted):
            if np.asarray(b).dtype.kind == "f":
                error += float(np.sum((np.asarray(a, np.float64) - b) ** 2))
                energy += float(np.sum(np.asarray(b, np.float64) ** 2))
    return error / max(energy, 1e-30)


def exact(names):
    """A regular expression that matches these names and no others; a comma or brace would end the option."""
    return "|".join("^" + re.sub(r"[^A-Za-z0-9_/ ]", ".", name) + "$" for name in names)


def left_out(build, layers, task, reference, feeds, seconds):
    """The names to exclude, worst first, and what was tried. `build(options)` compiles with these further options of the pass."""
    end, wanted = time.monotonic() + seconds, task.rehearse(reference) - ENOUGH
    outputs = [reference(feed) for feed in feeds]
    measured = {}
    for name in layers:
        if time.monotonic() > end:
            break
        try:
            side = build(f",include={exact([name])}")
        except Failed:
            continue
        measured[name] = noise([side.run(feed) for feed in feeds], outputs)
    worst = sorted(measured, key=measured.get, reverse=True)
    count, tried = 1, []
    while count < len(worst):
        side = build(f",exclude={exact(worst[:count])}")
        score = task.rehearse(side.run)
        tried.append((count, score))
        if score >= wanted:
            return worst[:count], tried
        count *= 2
    raise Failed(f"no set of layers was found to leave out ({len(measured)} of {len(layers)} measured, {len(tried)} sets tried)")
