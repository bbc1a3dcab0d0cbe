"""Pages of text turned by 0, 90, 180 and 270 degrees: which turn is it?

Two scans, two photographed pieces, and pages set here from film reviews in many faces and sizes, with what a camera adds: a slope, a shade, noise.
"""
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sentences import reviews
from sides import fetch

TURNS = (0, 90, 180, 270)


def faces():
    return sorted(p for p in (fetch("fonts")[0] / "ttf").glob("*.ttf") if "Math" not in p.name)


def written(rng, text, font_files):
    """A page as a camera sees it."""
    width, height = int(rng.integers(560, 900)), int(rng.integers(760, 1100))
    paper = int(rng.integers(200, 256))
    page = Image.new("L", (width, height), paper)
    draw, margin = ImageDraw.Draw(page), int(rng.integers(30, 90))
    size, face = int(rng.integers(15, 27)), str(font_files[rng.integers(len(font_files))])
    font, title = ImageFont.truetype(face, size), ImageFont.truetype(face, 2 * size)
    ink, at = int(rng.integers(0, 90)), margin
    words = text.split()
    if rng.random() < 0.5:
        draw.text((margin, at), " ".join(words[:4])[: (width - 2 * margin) // (size + 4)], font=title, fill=ink)
        at += 3 * size
    columns = 2 if width > 700 and rng.random() < 0.4 else 1
    gap = 2 * size
    wide = (width - 2 * margin - (columns - 1) * gap) // columns
    letters = max(8, int(wide / font.getlength("n")))
    lines, top, column = textwrap.wrap(" ".join(words[4:]), letters), at, 0
    for k, line in enumerate(lines):
        if at > height - margin - size:
            column, at = column + 1, top
            if column == columns:
                break
        draw.text((margin + column * (wide + gap), at), line, font=font, fill=ink)
        at += int(1.35 * size) + (size if k % 9 == 8 else 0)
    page = page.rotate(float(rng.normal(0, 1.2)), resample=Image.Resampling.BICUBIC, fillcolor=paper)
    pixels = np.asarray(page, np.float32)
    shade = np.linspace(1, rng.uniform(0.7, 1), width)[None] * np.linspace(1, rng.uniform(0.8, 1), height)[:, None]
    pixels = pixels * shade + rng.normal(0, rng.uniform(2, 10), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def pieces(folders):
    """Parts of the scans and of the photographed pages, large enough to show lines."""
    photos, scans = folders
    out = []
    for path, side in ((scans / "linn.png", 1300), (scans / "typewriter.png", 1900)):
        image = Image.open(path).convert("RGB")
        across, down = max(1, image.width // side), max(1, image.height // side)
        out.append(image)
        for y in range(down):
            for x in range(across):
                out.append(image.crop((x * side, y * side, (x + 1) * side, (y + 1) * side)))
    out += [Image.open(photos / "data" / name).convert("RGB") for name in ("page.png", "text.png")]
    return out


def fed(image, turn):
    """As the classifier wants it: the short side 256, the middle 224 x 224, normalised."""
    image = image.rotate(-turn, expand=True)
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return {"x": pixels.transpose(2, 0, 1)[None].astype(np.float32)}


class Pages:
    model, title = "pplcnet-orientation", "turns of pages"
    measure, measured = "accuracy, %", True
    shapes = {"x": (1, 3, 224, 224)}
    SET, TRIED = 120, 30

    def __init__(self, quick=False):
        font_files, source = faces(), reviews()
        texts = []
        while len(texts) < self.SET + 2 * self.TRIED:
            text = ". ".join(next(source))
            if len(text) > 700:
                texts.append(text * 3)
        rng = np.random.default_rng(5)
        images = [written(rng, text, font_files) for text in texts]
        real = pieces(fetch("photos", "scans"))
        self.data = f"{self.SET} pages set here, {len(real)} pieces of scans and photos, in 4 turns each"
        self.judged = self.turned(images[: self.SET] + real)
        self.tries = self.turned(images[self.SET : self.SET + self.TRIED])
        self.samples = [feed for feed, _ in self.turned(images[self.SET + self.TRIED :])]

    @staticmethod
    def turned(images):
        return [(fed(image, turn), turn) for image in images for turn in TURNS]

    def seen(self):
        return self.samples

    def timed(self):
        return [self.judged[0][0]]

    @staticmethod
    def right(run, some):
        return 100 * float(np.mean([TURNS[int(np.argmax(run(feed)[0]))] == turn for feed, turn in some]))

    def score(self, run):
        return self.right(run, self.judged), {}

    def rehearse(self, run):
        return self.right(run, self.tries)
