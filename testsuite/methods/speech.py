"""Speech against noise: spoken sentences of several languages, in noise of several kinds, chunk after chunk with the state fed back.

What is speech follows from the energy of the clean recording: chunks above -30 dB of its loud ones are, those below -50 dB and those before
and behind the sentence are not, and what lies between is not counted.
"""
import numpy as np

from demo import CHUNK, CONTEXT, RATE, wav_samples
from sides import fetch

SEEN_LANGUAGES = ("en", "es")
NOISES, RATIOS = ("white", "pink", "hum"), (20, 8, 0)  # dB, speech to noise


def noise(rng, kind, count):
    """Of mean square 1."""
    white = rng.standard_normal(count)
    if kind == "white":
        return white
    if kind == "pink":
        spectrum = np.fft.rfft(white)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
        out = np.fft.irfft(spectrum, count)
    else:
        time = np.arange(count) / RATE
        out = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in (1, 2, 3, 5, 8)) + 0.3 * white
    return out / np.sqrt(np.mean(out**2))


class Passage:
    """One recording with a second of noise before and after it: chunks, and what each is (1, 0, or -1 for not counted)."""

    def __init__(self, rng, clean, kind, ratio):
        sound = np.concatenate([np.zeros(RATE), clean, np.zeros(RATE)])
        sound = sound[: len(sound) // CHUNK * CHUNK]
        energy = (sound.reshape(-1, CHUNK) ** 2).mean(1)
        level = np.percentile(energy[energy > 0], 90)
        power = 10 * np.log10(np.maximum(energy, 1e-12) / level)
        self.labels = np.where(power > -30, 1, np.where(power < -50, 0, -1))
        loud = np.mean(sound[np.repeat(self.labels == 1, CHUNK)] ** 2)
        heard = sound + noise(rng, kind, len(sound)) * np.sqrt(loud / 10 ** (ratio / 10))
        heard = np.concatenate([np.zeros(CONTEXT), heard / max(1, np.abs(heard).max())]).astype(np.float32)
        self.chunks = [heard[None, s : s + CONTEXT + CHUNK] for s in range(0, len(sound), CHUNK)]


def follow(run, chunks, keep=None):
    """The probability of speech of every chunk."""
    state, out = np.zeros((2, 1, 128), np.float32), []
    for chunk in chunks:
        feed = {"input": chunk, "state": state, "sr": np.array(RATE, np.int64)}
        if keep is not None:
            keep.append(feed)
        probability, state = run(feed)[:2]
        out.append(float(probability[0, 0]))
    return out


def judge(run, passages):
    """Accuracy at 0.5, and area below the curve of hits over false alarms, both in %."""
    said = np.concatenate([follow(run, p.chunks) for p in passages])
    labels = np.concatenate([p.labels for p in passages])
    said, labels = said[labels >= 0], labels[labels >= 0]
    order = np.argsort(np.argsort(said, kind="stable")) + 1.0
    for value in np.unique(said):
        same = said == value
        if same.sum() > 1:
            order[same] = order[same].mean()
    ones, zeros = (labels == 1).sum(), (labels == 0).sum()
    area = (order[labels == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros)
    return 100 * float(np.mean((said > 0.5) == (labels == 1))), 100 * float(area)


class Speech:
    model, title = "silero-vad", "speech or noise"
    measure, measured = "accuracy of chunks at 0.5, %", True
    shapes = {}

    def __init__(self, quick=False):
        rng = np.random.default_rng(6)
        clips = sorted((fetch("speech-languages")[0] / "audio").glob("*/*.wav"))
        passages = {True: [], False: []}
        for k, clip in enumerate(clips):
            seen = clip.parent.name in SEEN_LANGUAGES
            for i, ratio in enumerate(RATIOS):
                passages[seen].append(Passage(rng, wav_samples(clip), NOISES[(k + i) % len(NOISES)], ratio))
        self.judged, self.tries = passages[False], passages[True][::2]
        self.others = passages[True][1::2]
        counted = sum(int((p.labels >= 0).sum()) for p in self.judged)
        self.data = f"{counted:,} chunks of 32 ms of {len(self.judged) // len(RATIOS)} recordings in 7 languages, noise at {', '.join(map(str, RATIOS))} dB"
        self.samples = None

    def prepare(self, run):
        """Samples with the states that the model as it is has there."""
        kept = []
        for passage in self.others:
            follow(run, passage.chunks, kept)
        self.samples = kept[:: max(1, len(kept) // 200)]

    def seen(self):
        return self.samples

    def timed(self):
        return [self.samples[len(self.samples) // 2]]

    def score(self, run):
        accuracy, area = judge(run, self.judged)
        return accuracy, {"area below the curve, %": area}

    def rehearse(self, run):
        return judge(run, self.tries)[0]
