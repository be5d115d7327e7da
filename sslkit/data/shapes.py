"""The data set `shapes`: small outdoor scenes of ten upright things, drawn in code from a seed.

It exists so that a method can be tried in minutes with nothing downloaded, and it is made to teach
every kind of self-supervision fairly: scenes have an up and a down, things have parts in a layout,
and colours follow materials, which classes share, so that neither pixels nor colours name a class.
The file is long because the ten drawings are in it.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

# The same seed must give the same bytes everywhere. So: a hash for random numbers (NumPy promises
# no stream for Generator methods); elementwise + - * / sqrt, floor and comparisons for drawing
# (IEEE 754 rounds those exactly; sin, exp and sums differ in the last bit between machines); and
# no NumPy scalars beside the float32 arrays (NumPy 1 and 2 promote them differently).
Array = NDArray[np.floating]  # float32; the stubs do not see that Python's numbers keep it

_SIZE = 32
COUNTS = {"train": 50_000, "test": 10_000}
_BLOCK = 640  # images drawn together: about 64 a class keep a working array inside the cache
_MATERIALS = {  # RGB anchors in 0..255; a colour is a random point between two of them
    "sky": [(110, 165, 230), (185, 215, 240), (245, 205, 175), (60, 85, 145)],
    "ground": [(90, 140, 65), (140, 160, 85), (155, 125, 80), (205, 185, 130)],
    "hill": [(90, 120, 90), (110, 125, 150), (150, 130, 110), (190, 200, 210)],
    "cloud": [(255, 255, 255), (225, 225, 235), (250, 215, 200), (150, 155, 170)],
    "foliage": [(40, 90, 40), (95, 150, 50), (160, 165, 60), (60, 120, 90), (190, 110, 45)],
    "wood": [(90, 60, 40), (140, 95, 60), (75, 65, 60), (170, 130, 90)],
    "wall": [(235, 225, 205), (200, 120, 90), (180, 180, 185), (225, 190, 135), (150, 95, 85)],
    "paint": [(200, 50, 45), (240, 185, 50), (60, 110, 195), (50, 145, 120), (155, 75, 155)],
    "light": [(250, 245, 230), (255, 230, 150), (215, 235, 245), (165, 195, 215)],
    "dark": [(40, 40, 45), (70, 55, 50), (45, 60, 90)],
}
_RGB = {name: np.array(rgb, np.float32) / 255 for name, rgb in _MATERIALS.items()}


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a bijection of 64 bits under which neighbours look unrelated."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class _Scene:
    """n images of one class while they are drawn: x to the right, y up, the thing in [-1, 1]^2.

    Every attribute and every draw is an array that broadcasts against (n, 32, 32).
    """

    def __init__(self, stream: NDArray[np.uint64]) -> None:
        self.stream, self.channel = stream, 0
        axis = (np.arange(_SIZE, dtype=np.float32) + 0.5) / (_SIZE / 2) - 1
        self.right, self.up = axis[None, None, :], -axis[None, :, None]  # the frame
        scale = self.draw(0.55, 1)
        wide, tall = scale * self.draw(0.9, 1.1), scale * self.draw(0.9, 1.1)
        middle, height = self.draw(-0.7, 0.7), self.draw(-0.6, 0.55)
        mirror = np.sign(self.draw(-1, 1))
        self.y = (self.up - height) / tall
        self.x = (self.right - middle) / wide * mirror + self.y * self.draw(-0.1, 0.1)
        self.image: Array = np.empty((len(stream), 3, _SIZE, _SIZE), np.float32)
        self.soft: Array | float = 2 / _SIZE  # the side of a pixel
        self.light = self.draw(0.45, 1.25)
        self._backdrop(height - tall)
        self.soft = self.soft / scale
        self.light = self.light * self.draw(0.85, 1.1)
        self.light = self.light * (1 + self.draw(-0.15, 0.15) * self.x + 0.12 * self.y)

    def _bits(self) -> NDArray[np.uint64]:
        self.channel += 1
        return _mix(self.stream + np.uint64(self.channel * 0x9E3779B97F4A7C15 % 2**64))

    def draw(self, low: float, high: float) -> Array:
        """The next random number of each image: uniform in [low, high), (n, 1, 1)."""
        unit = (self._bits() >> np.uint64(40)).astype(np.float32) / 2**24
        return (low + (high - low) * unit)[:, None, None]

    def colour(self, material: str) -> Array:
        """The next random colour of each image, (n, 3, 1, 1): between two anchors of a material."""
        rgb = _RGB[material]
        one, two = (rgb[(self._bits() >> np.uint64(32)) % np.uint64(len(rgb))] for _ in range(2))
        mixed = one + (two - one) * self.draw(0, 1)[:, :, 0]
        return (mixed * self.draw(0.92, 1.08)[:, :, 0])[:, :, None, None]

    def paint(self, distance: Array, colour: Array) -> None:
        """Lays a colour wherever the signed distance is negative, with edges a pixel soft."""
        cover = np.clip(0.5 - distance / self.soft, 0, 1)[:, None]
        self.image += cover * (colour * self.light[:, None] - self.image)

    def weather(self) -> None:
        """Dulls and tints the colours and lays haze over all, as an augmentation could undo."""
        grey = (self.image[:, :1] + self.image[:, 1:2] + self.image[:, 2:]) / 3
        self.image[:] = grey + (self.image - grey) * self.draw(0.6, 1.2)[:, None]
        for channel in range(3):
            self.image[:, channel] *= self.draw(0.6, 1.3)
        haze = self.draw(0.2, 0.9)[:, None]
        self.image[:] = haze + (self.image - haze) * self.draw(0.6, 1)[:, None]

    def _backdrop(self, foot: Array) -> None:
        """Sky, clouds, hills and ground, whatever the class; the thing's foot is on the ground."""
        right, up = self.right, self.up
        horizon = foot + self.draw(0.05, 0.9)
        sky, ground = self.colour("sky"), self.colour("ground")
        self.image[:] = sky * (self.light * (1.05 - 0.2 * (up - horizon)))[:, None]
        x, y, size = self.draw(-1, 1), horizon + self.draw(0.2, 1.2), self.draw(0, 0.3)
        cloud = _oval(right - x, up - y, 1.6 * size + 0.01, 0.6 * size + 0.01)
        self.paint(cloud, self.colour("cloud"))
        slope = _stripes(right + self.draw(0, 2), 1.5) * self.draw(0, 0.5)
        self.paint(up - horizon - 0.1 - slope, self.colour("hill"))
        self.paint(up - horizon, ground)
        self.paint(up - horizon + 0.5, ground * 0.9)
        x, y, size = self.draw(-1, 1), horizon - self.draw(0, 0.8), self.draw(0, 0.2)
        bush = _oval(right - x, up - y, 1.3 * size + 0.01, size + 0.01)
        self.paint(bush, self.colour("foliage"))


def _oval(x: Array, y: Array, wide: Array | float, tall: Array | float) -> Array:
    x, y = x / wide, y / tall
    return (np.sqrt(x * x + y * y) - 1) * tall


def _box(x: Array, y: Array, wide: float, tall: float) -> Array:
    return np.maximum(np.abs(x) - wide, np.abs(y) - tall)


def _taper(x: Array, y: Array, low: float, high: float, foot: float, tip: float) -> Array:
    """From y = low, where the half-width is foot, up to y = high, where it is tip."""
    side = np.abs(x) - (foot + (tip - foot) / (high - low) * (y - low))
    return np.maximum(side, np.maximum(low - y, y - high))


def _stripes(t: Array, period: Array | float, part: float = 0.5) -> Array:
    """Bands across t, centred on the multiples of the period, of which they fill a part."""
    t = t / period
    return (np.abs(t - np.floor(t + 0.5)) - part / 2) * period


def _dots(x: Array, y: Array, period: float, radius: float) -> Array:
    x, y = x / period, y / period
    x, y = (x - np.floor(x + 0.5)) * period, (y - np.floor(y + 0.5)) * period
    return np.sqrt(x * x + y * y) - radius


def _house(s: _Scene) -> None:
    x, y, wall, roof = s.x, s.y, s.colour("wall"), s.colour("paint")
    s.paint(_box(x - 0.5, y - 0.5, 0.13, 0.4), wall * 0.7)
    s.paint(_box(x, y + 0.5, 0.82, 0.5), wall)
    s.paint(_box(x, y + 0.92, 0.82, 0.08), wall * 0.6)
    top = _taper(x, y, 0, 0.85, 1, 0.15)
    s.paint(top, roof)
    s.paint(np.maximum(top, _stripes(y, 0.28)), roof * 0.6)
    s.paint(_box(x, y + 0.7, 0.15, 0.3), s.colour("wood"))
    pane = np.abs(x) - 0.48
    s.paint(_box(pane, y + 0.42, 0.22, 0.24), s.colour("light"))
    for wide, tall in ((0.04, 0.24), (0.22, 0.04)):
        s.paint(_box(pane, y + 0.42, wide, tall), wall * 0.4)


def _tree(s: _Scene) -> None:
    x, y, leaf = s.x, s.y, s.colour("foliage")
    s.paint(_taper(x, y, -1, 0.2, 0.2, 0.1), s.colour("wood"))
    for right, up in ((0, 0.62), (-0.5, 0.35), (0.5, 0.35), (0, 0.2), (-0.4, 0), (0.4, 0)):
        s.paint(_oval(x - right, y - up, 0.42, 0.36), leaf * 0.55)
        s.paint(_oval(x - right, y - up - 0.08, 0.34, 0.26), leaf)


def _fir(s: _Scene) -> None:
    x, y, leaf, rim = s.x, s.y, s.colour("foliage"), s.colour("light")
    s.paint(_box(x, y + 0.8, 0.13, 0.2), s.colour("wood"))
    for low, foot in ((-0.7, 0.8), (-0.2, 0.62), (0.3, 0.44)):
        tier = _taper(x, y, low, low + 0.7, foot, 0)
        s.paint(tier, leaf)
        s.paint(np.maximum(tier, y - low - 0.14), rim)


def _car(s: _Scene) -> None:
    x, y, body, glass = s.x, s.y + 0.15, s.colour("paint"), s.colour("light")
    s.paint(_taper(x + 0.1, y, -0.2, 0.5, 0.72, 0.42), body * 0.85)
    pane = _taper(x + 0.1, y, -0.1, 0.38, 0.58, 0.4)
    s.paint(np.maximum(pane, 0.06 - np.abs(x + 0.1)), glass)
    s.paint(_box(x, y + 0.4, 0.98, 0.27), body)
    s.paint(_box(x, y + 0.42, 0.98, 0.05), body * 0.6)
    s.paint(_oval(x - 0.88, y + 0.28, 0.1, 0.1), s.colour("light"))
    tyre = np.abs(x) - 0.55
    s.paint(_oval(tyre, y + 0.62, 0.28, 0.28), s.colour("dark"))
    s.paint(_oval(tyre, y + 0.62, 0.13, 0.13), s.colour("light"))


def _boat(s: _Scene) -> None:
    x, y, hull, sail = s.x, s.y, s.colour("wood"), s.colour("light")
    s.paint(_box(x, y - 0.2, 0.05, 0.8), hull * 0.6)
    stripe = s.colour("paint")
    for side, reach in ((1, 0.75), (-1, 0.5)):
        cloth = np.maximum(0.08 - x * side, x * side - reach * 0.62 * (0.95 - y))
        cloth = np.maximum(cloth, -0.4 - y)
        s.paint(cloth, sail)
        s.paint(np.maximum(cloth, _stripes(y - 0.1, 0.44, 0.4)), stripe)
    keel = _taper(x, y, -1, -0.5, 0.6, 0.95)
    s.paint(keel, hull)
    s.paint(np.maximum(keel, -0.65 - y), hull * 0.65)


def _flower(s: _Scene) -> None:
    x, y, petal, stem = s.x, s.y, s.colour("paint"), s.colour("foliage")
    s.paint(_box(x, y + 0.4, 0.07, 0.6), stem)
    s.paint(_oval(x - 0.35, y + 0.65 - 0.4 * x, 0.35, 0.15), stem * 0.85)
    s.paint(_oval(x + 0.35, y + 0.5 + 0.4 * x, 0.35, 0.15), stem * 0.85)
    y = y - 0.35
    ring = ((1, 0), (0.5, 0.87), (-0.5, 0.87), (-1, 0), (-0.5, -0.87), (0.5, -0.87))
    for i, (right, up) in enumerate(ring):
        s.paint(_oval(x - 0.46 * right, y - 0.42 * up, 0.28, 0.26), petal * (1 if i % 2 else 0.65))
    s.paint(_oval(x, y, 0.3, 0.3), s.colour("light"))
    s.paint(_oval(x, y, 0.16, 0.16), s.colour("dark"))


def _mushroom(s: _Scene) -> None:
    x, y, cap, spot = s.x, s.y, s.colour("paint"), s.colour("light")
    stem = _taper(x, y, -1, 0.1, 0.38, 0.24)
    s.paint(stem, s.colour("wall"))
    gills = _oval(x, y - 0.02, 0.9, 0.2)
    s.paint(gills, spot * 0.8)
    s.paint(np.maximum(gills, _stripes(x, 0.24)), spot * 0.5)
    dome = np.maximum(_oval(x, y - 0.02, 0.95, 0.9), 0.02 - y)
    s.paint(dome, cap)
    s.paint(np.maximum(dome, _dots(x + 0.23, y - 0.05, 0.46, 0.14)), spot)


def _lighthouse(s: _Scene) -> None:
    x, y, wall, band = s.x, s.y, s.colour("light"), s.colour("paint")
    tower = _taper(x, y, -1, 0.4, 0.5, 0.3)
    s.paint(tower, wall)
    s.paint(np.maximum(tower, _stripes(y + 0.1 + 0.25 * x, 0.56)), band)
    s.paint(_box(x, y - 0.65, 0.2, 0.2), s.colour("light"))
    s.paint(_box(x, y - 0.65, 0.05, 0.2), band * 0.4)
    s.paint(_box(x, y - 0.42, 0.42, 0.07), s.colour("dark"))
    s.paint(_taper(x, y, 0.78, 1, 0.34, 0), band * 0.7)
    s.paint(_box(x, y + 0.82, 0.12, 0.18), s.colour("dark"))


def _balloon(s: _Scene) -> None:
    x, y, one, two = s.x, s.y, s.colour("paint"), s.colour("light")
    bag = np.minimum(_oval(x, y - 0.3, 0.75, 0.7), _taper(x, y, -0.55, 0.05, 0.2, 0.7))
    s.paint(bag, one)
    bulge = np.sqrt(np.maximum(1.15 - (y - 0.2) * (y - 0.2), 0.1))
    s.paint(np.maximum(bag, _stripes(x / bulge, 0.44)), two)
    s.paint(np.maximum(np.abs(np.abs(x) - 0.15) - 0.03, _box(x, y + 0.65, 1, 0.15)), one * 0.4)
    s.paint(_box(x, y + 0.87, 0.22, 0.13), s.colour("wood"))


def _robot(s: _Scene) -> None:
    x, y, skin, eye = s.x, s.y, s.colour("wall"), s.colour("light")
    side = np.abs(x)
    s.paint(_box(side - 0.25, y + 0.8, 0.14, 0.2), skin * 0.6)
    s.paint(_box(side - 0.68, y + 0.3, 0.12, 0.3), skin * 0.7)
    s.paint(_box(x, y + 0.25, 0.5, 0.4), skin)
    s.paint(_box(x, y + 0.25, 0.4, 0.3), s.colour("dark"))
    lamps = np.maximum(_box(x, y + 0.25, 0.4, 0.3), _dots(x, y + 0.12, 0.26, 0.09))
    s.paint(lamps, s.colour("paint"))
    s.paint(_box(x, y - 0.82, 0.04, 0.18), skin * 0.6)
    s.paint(_box(x, y - 0.48, 0.44, 0.27), skin * 0.9)
    s.paint(_oval(side - 0.2, y - 0.54, 0.17, 0.17), eye)
    s.paint(_oval(side - 0.2, y - 0.54, 0.08, 0.08), eye * 0.2)
    s.paint(_box(x, y - 0.3, 0.24, 0.04), eye * 0.3)


_THINGS: dict[str, Callable[[_Scene], None]] = {
    "balloon": _balloon,
    "boat": _boat,
    "car": _car,
    "fir": _fir,
    "flower": _flower,
    "house": _house,
    "lighthouse": _lighthouse,
    "mushroom": _mushroom,
    "robot": _robot,
    "tree": _tree,
}
CLASSES: tuple[str, ...] = tuple(_THINGS)


def shapes(
    split: str = "train", n: int | None = None, *, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scenes of ten upright things: n colour images of 32 x 32 pixels, and what each one shows.

    Image i depends on (seed, split, i) alone, so a smaller n is a prefix of a larger one, and its
    bytes are the same on every machine. Each ten images, counted from the first, show every one of
    `CLASSES` once, in shuffled order. The things vary in place, size, proportions, tilt, side,
    colours and light; sky, cloud, hills, ground and bush are drawn without regard to the class.

    Args:
        split: "train" or "test", disjoint streams of random numbers.
        n: how many images, at least 1; None is 50,000 of train or 10,000 of test.
        seed: of the whole set, at least 0.

    Returns:
        images (n, 3, 32, 32), uint8 in 0..255, RGB; and labels (n,), int64, indices into `CLASSES`.

    Raises:
        ValueError: an unknown split, an n below 1 or a seed below 0, or either not an integer.

    >>> images, labels = shapes("test", 20)
    >>> images.shape, images.dtype, sorted(labels[:10].tolist()) == list(range(10))
    ((20, 3, 32, 32), dtype('uint8'), True)
    >>> [CLASSES[label] for label in labels[:3]]
    ['lighthouse', 'boat', 'fir']
    """
    if split not in tuple(COUNTS):
        raise ValueError(f"split {split!r} is none of {', '.join(map(repr, COUNTS))}")
    n = COUNTS[split] if n is None else n
    for name, value, least in (("n", n, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} {value!r} is not an integer of at least {least}")
    n, key = int(n), hashlib.sha256(f"sslkit shapes {split} {int(seed)}".encode()).digest()[:8]
    stream = _mix(np.arange(-(-n // 10) * 10, dtype=np.uint64) + np.frombuffer(key, "<u8"))
    # Each ten images in a row are the ten classes, in the order of ten hashes.
    labels = np.argsort(_mix(stream).reshape(-1, 10), axis=1, kind="stable").reshape(-1)[:n]
    stream = stream[:n]
    images = np.empty((n, 3, _SIZE, _SIZE), np.uint8)

    def fill(start: int) -> None:
        for label, draw in enumerate(_THINGS.values()):
            chosen = start + np.flatnonzero(labels[start : start + _BLOCK] == label)
            if len(chosen):
                scene = _Scene(stream[chosen])
                draw(scene)
                scene.weather()
                images[chosen] = np.clip(scene.image * 255 + 0.5, 0, 255).astype(np.uint8)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, n, _BLOCK)))
    return images, labels.astype(np.int64)
