"""Lines of text drawn into photographs, at known places: are their boxes found?

A box is found if one that was not taken yet covers it with an intersection of at least half of the union. The score is F1, the harmonic mean
of the share of lines found and of boxes that are lines.
"""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pages import faces
from sentences import reviews
from sides import fetch

HEIGHT, WIDTH = 480, 640
JUDGED = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coins.png", "gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
SEEN = ("color.png", "grass.png", "ihc.png", "motorcycle_right.png")


def background(rng, image):
    """A part of a photo in the size that is wanted."""
    scale = max(WIDTH / image.width, HEIGHT / image.height) * rng.uniform(1, 1.6)
    image = image.resize((round(image.width * scale) + 1, round(image.height * scale) + 1), Image.Resampling.BILINEAR)
    left, top = int(rng.integers(image.width - WIDTH + 1)), int(rng.integers(image.height - HEIGHT + 1))
    return image.crop((left, top, left + WIDTH, top + HEIGHT))


def picture(rng, image, words, font_files):
    """A photo with lines of text, and their boxes (left, top, right, bottom)."""
    image, boxes = background(rng, image).copy(), []
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        font = ImageFont.truetype(str(font_files[rng.integers(len(font_files))]), int(rng.integers(16, 44)))
        start = int(rng.integers(len(words) - 6))
        text = " ".join(words[start : start + int(rng.integers(1, 5))])
        left, top = int(rng.integers(8, WIDTH - 60)), int(rng.integers(8, HEIGHT - 50))
        box = draw.textbbox((left, top), text, font=font)
        near = any(box[0] < b[2] + 16 and b[0] < box[2] + 16 and box[1] < b[3] + 14 and b[1] < box[3] + 14 for b in boxes)
        if near or box[2] > WIDTH - 8 or box[3] > HEIGHT - 8:
            continue
        beneath = np.asarray(image.crop(box), np.float32).mean()
        ink = rng.integers(0, 60, 3) if beneath > 128 else rng.integers(196, 256, 3)
        draw.text((left, top), text, font=font, fill=tuple(int(c) for c in ink))
        boxes.append(box)
        if len(boxes) == 6:
            break
    return image, boxes


def fed(image):
    pixels = np.asarray(image, np.float32)[..., ::-1] / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return {"x": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)}


def components(mask):
    """Lists of runs (row, from, to) that touch."""
    parent, runs, last = [], [], []

    def root(k):
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for y in np.flatnonzero(mask.any(1)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask[y].astype(np.int8), [0]])))
        here = []
        for a, b in zip(edges[::2], edges[1::2]):
            k = len(parent)
            parent.append(k)
            runs.append((y, a, b))
            here.append(k)
            for other in last:
                yy, c, d = runs[other]
                if yy == y - 1 and c < b and a < d:
                    parent[root(k)] = root(other)
        last = here
    groups = {}
    for k, run in enumerate(runs):
        groups.setdefault(root(k), []).append(run)
    return list(groups.values())


def found(chances):
    """Boxes in a map of probabilities: parts above 0.3, of mean 0.6 at least, grown by what their makers shrank them."""
    boxes = []
    for runs in components(chances > 0.3):
        count = sum(b - a for _, a, b in runs)
        left, right = min(a for _, a, _ in runs), max(b for _, _, b in runs)
        top, bottom = min(y for y, _, _ in runs), max(y for y, _, _ in runs) + 1
        if min(right - left, bottom - top) < 3:
            continue
        if sum(float(chances[y, a:b].sum()) for y, a, b in runs) / count < 0.6:
            continue
        grow = 1.5 * (right - left) * (bottom - top) / (2 * (right - left + bottom - top))
        boxes.append((left - grow, top - grow, right + grow, bottom + grow))
    return boxes


def overlap(a, b):
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def hits(boxes, wanted):
    left, count = list(boxes), 0
    for one in wanted:
        best = max(left, key=lambda b: overlap(b, one), default=None)
        if best is not None and overlap(best, one) >= 0.5:
            left.remove(best)
            count += 1
    return count


class Boxes:
    model, title = "ppocr4-det", "boxes of text"
    measure, measured = "F1 of boxes, %", True
    shapes = {"x": (1, 3, HEIGHT, WIDTH)}

    def __init__(self, quick=False):
        rng, font_files = np.random.default_rng(8), faces()
        source = reviews()
        words = [w for _ in range(40) for s in next(source) for w in s.split()]
        folder = fetch("photos")[0] / "data"

        def set_of(names, each):
            photos = [Image.open(folder / name).convert("RGB") for name in names]
            made = [picture(rng, photo, words, font_files) for photo in photos for _ in range(each)]
            return [(fed(image), boxes) for image, boxes in made]

        self.judged, others = set_of(JUDGED, 5), set_of(SEEN, 6)
        self.tries, self.samples = others[::2], [feed for feed, _ in others[1::2]]
        lines = sum(len(boxes) for _, boxes in self.judged)
        self.data = f"{lines} lines of text drawn into {len(self.judged)} parts of photos"
        self.said = None

    def seen(self):
        return self.samples

    def timed(self):
        return [self.judged[0][0]]

    @staticmethod
    def f1(run, some):
        """(F1 with the true boxes, the boxes)."""
        told = [found(run(feed)[0][0, 0]) for feed, _ in some]
        right = sum(hits(boxes, wanted) for boxes, (_, wanted) in zip(told, some))
        total = sum(len(boxes) + len(wanted) for boxes, (_, wanted) in zip(told, some))
        return 200 * right / max(total, 1), told

    def score(self, run):
        score, told = self.f1(run, self.judged)
        if self.said is None:
            self.said = told
        right = sum(hits(a, b) for a, b in zip(told, self.said))
        same = 200 * right / max(sum(len(a) + len(b) for a, b in zip(told, self.said)), 1)
        return score, {"F1 with the boxes of f32, %": same}

    def rehearse(self, run):
        return self.f1(run, self.tries)[0]
