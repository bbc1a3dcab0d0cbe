"""Paired ratios and the tables of peers.py, from records of rounds.

A record is {"model", "runtime", "threads", "round", "ms"}; `states` gives for (model, runtime) why it has no figure, or
{"error", "versions", ..} of a runtime that has.
"""
import math
import statistics

OURS, ALLOWED = "planish", 1e-2
# Student's t, two-sided 95%, for 1, 2, .. degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
       2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


class Ratio:
    """The geometric mean of paired ratios, with the 95% interval that t on their logarithms gives (None below 3)."""

    def __init__(self, ratios):
        logs = [math.log(r) for r in ratios]
        self.log, self.error, self.low, self.high = statistics.mean(logs), None, None, None
        self.value = math.exp(self.log)
        if len(logs) >= 3:
            self.error = statistics.stdev(logs) / math.sqrt(len(logs))
            wide = self.error * T95[min(len(logs) - 2, len(T95) - 1)]
            self.low, self.high = math.exp(self.log - wide), math.exp(self.log + wide)

    def __str__(self):
        return f"{self.value:.3f}" if self.low is None else f"{self.value:.3f} ({self.low:.3f}..{self.high:.3f})"

    def verdict(self):
        if self.low is None:
            return ""
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "even"


def combined(ratios):
    """The geometric mean of several, its interval from theirs."""
    text = f"{math.exp(statistics.mean(r.log for r in ratios)):.3f}"
    if all(r.error is not None for r in ratios):
        log, error = statistics.mean(r.log for r in ratios), math.sqrt(sum(r.error**2 for r in ratios)) / len(ratios)
        text += f" ({math.exp(log - 1.96 * error):.3f}..{math.exp(log + 1.96 * error):.3f})"
    return text


def qualified(state):
    return isinstance(state, dict) and state["error"] is not None and state["error"] <= ALLOWED


class Results:
    def __init__(self, records, states):
        self.states, self.times = states, {}
        for r in records:
            self.times.setdefault((r["model"], r["runtime"], r["threads"]), {})[r["round"]] = r["ms"]

    def median(self, model, runtime, threads):
        rounds = self.times.get((model, runtime, threads))
        return statistics.median(rounds.values()) if rounds else None

    def ratio(self, model, runtime, threads):
        """Ours over theirs, over the rounds in which both were timed."""
        ours, theirs = (self.times.get((model, r, threads), {}) for r in (OURS, runtime))
        pairs = [ours[k] / theirs[k] for k in ours if k in theirs]
        return Ratio(pairs) if pairs else None

    def best(self, model, peers, threads):
        """The peer with the least median whose output is right."""
        fit = [p for p in peers if qualified(self.states.get((model, p))) and self.median(model, p, threads)]
        return min(fit, key=lambda p: self.median(model, p, threads), default=None)

    def cell(self, model, runtime, threads):
        time = self.median(model, runtime, threads)
        if time is None:
            return "-"
        return f"{time:.4g}" if qualified(self.states[model, runtime]) else f"({time:.4g})"

    def table(self, models, peers, threads):
        """Lines of Markdown: a row for each model, geometric means below."""
        lines = [f"### {threads} thread{'s' * (threads > 1)}, milliseconds", ""]
        lines.append(f"| model | {OURS} | {' | '.join(peers)} | best peer | ours / best (95%) | | ours / onnxruntime (95%) |")
        lines.append("|---" + "|---:" * (1 + len(peers)) + "|---|---|---|---|")
        to_best, to_ort = [], []
        for model in models:
            cells = [self.cell(model, r, threads) for r in (OURS, *peers)]
            best = self.best(model, peers, threads)
            ratio = self.ratio(model, best, threads) if best else None
            ort = self.ratio(model, "onnxruntime", threads) if qualified(self.states.get((model, "onnxruntime"))) else None
            right = qualified(self.states.get((model, OURS)))
            to_best += [ratio] if ratio and right else []
            to_ort += [ort] if ort and right else []
            cells += [best or "-", str(ratio or "-"), ratio.verdict() if ratio and right else "", str(ort or "-")]
            lines.append(f"| {model} | {' | '.join(cells)} |")
        for name, ratios in (("best peer", to_best), ("onnxruntime", to_ort)):
            if ratios:
                lines += ["", f"Geometric mean of ours / {name} over {len(ratios)} models: **{combined(ratios)}**."]
        return lines

    def remarks(self):
        """Who could not run what, and whose output was wrong."""
        lines = []
        for (model, runtime), state in sorted(self.states.items(), key=lambda item: item[0][::-1]):
            if isinstance(state, str):
                lines.append(f"- {runtime}, {model}: not run: {' '.join(state.split())[:200]}")
            elif not qualified(state):
                error = "outputs are missing" if state["error"] is None else f"relative error {state['error']:.2g}"
                lines.append(f"- {runtime}, {model}: disqualified, {error}")
        return ["Left out or disqualified:", "", *lines] if lines else []
