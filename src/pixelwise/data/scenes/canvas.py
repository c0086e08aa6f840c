"""Light, camera and canvas: places in meters become pixels of an image and of its mask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pixelwise.data.classes import Color
from pixelwise.data.scenes.scene_classes import NEAR, OVERSAMPLING, ROWS, SKY

Point = tuple[float, float]
Place = tuple[float, float, float]
"""(x, y, z) in meters: x to the right of the camera, y above the ground, z ahead."""


@dataclass(frozen=True)
class Light:
    """A time of day. Colors are RGB, 0..255; gains multiply the colors of things."""

    sky_top: Color
    sky_low: Color
    gain: tuple[float, float, float]
    sun: int  # the side the sun stands on: -1 left, 1 right, 0 behind clouds
    shadow: int  # how dark shadows are, 0..255
    lit: float  # the share of windows with a lamp behind them
    clouds: float  # 0..1


def some_light(rng: np.random.Generator) -> Light:
    """Clear, overcast, low sun or dusk, the first of them most often."""
    sun = -1 if rng.random() < 0.5 else 1
    hour = rng.random()
    if hour < 0.4:
        blue = int(rng.integers(-14, 15))
        top, low = (92, 142 + blue // 2, 206 + blue), (190, 212, 230)
        return Light(top, low, (1.05, 1.02, 0.98), sun, 120, 0.0, float(rng.random()))
    if hour < 0.66:
        gray = int(rng.integers(-25, 20))
        top, low = (158 + gray, 166 + gray, 176 + gray), (204 + gray, 208 + gray, 210 + gray)
        return Light(top, low, (0.88, 0.9, 0.93), 0, 50, 0.04, 0.5)
    if hour < 0.86:
        top, low = (112, 138, 184), (244, 204, 160)
        return Light(top, low, (1.08, 0.93, 0.78), sun, 130, 0.1, float(rng.random()))
    top, low = (42, 54, 96), (196, 132, 116)
    return Light(top, low, (0.56, 0.58, 0.72), 0, 60, 0.45, 0.3)


def to_color(parts: Iterable[float]) -> Color:
    """Three numbers, cut to 0..255 and to whole ones."""
    red, green, blue = (int(min(255.0, max(0.0, part))) for part in parts)
    return red, green, blue


class Canvas:
    """An image and its mask, drawn together through one camera.

    Where a label may be given, a shape without one is detail on what is there already: it goes
    into the image and leaves the mask alone.
    """

    def __init__(self, rng: np.random.Generator, light: Light, height: int, width: int) -> None:
        self.rng = rng
        self.light = light
        self.unit = OVERSAMPLING * height / ROWS
        self.size = (OVERSAMPLING * width, OVERSAMPLING * height)
        self.columns = ROWS * width / height
        self.horizon = float(rng.uniform(56, 72))
        self.vanishing = self.columns * float(rng.uniform(0.36, 0.64))
        self.focal = float(rng.uniform(105, 145))
        self.eye = float(rng.uniform(1.7, 2.6))  # meters above the ground
        roll = math.radians(float(rng.normal(0.0, 0.9)))
        self._cos, self._sin = math.cos(roll), math.sin(roll)
        self.image = Image.new("RGB", self.size)
        self.mask = Image.new("L", self.size, SKY)
        self._picture = ImageDraw.Draw(self.image)
        self._labels = ImageDraw.Draw(self.mask)

    def at(self, x: float, y: float, z: float) -> Point:
        """Where a place appears, in oversampled pixels."""
        scale = self.focal / z
        right, down = x * scale, (self.eye - y) * scale
        return (
            (self.vanishing + right * self._cos - down * self._sin) * self.unit,
            (self.horizon + right * self._sin + down * self._cos) * self.unit,
        )

    def meters(self, rows: float, z: float) -> float:
        """The length that covers `rows` (of 144) at depth z."""
        return rows * z / self.focal

    def edge(self, z: float) -> float:
        """How far to the side, in meters, the image reaches at depth z."""
        return self.meters(max(self.vanishing, self.columns - self.vanishing), z)

    def ceiling(self, z: float) -> float:
        """The height, in meters, that the upper edge of the image cuts off at depth z."""
        return self.eye + self.meters(self.horizon + 8, z)

    def pick(self, colors: Sequence[Color], spread: float = 12.0) -> Color:
        """One of `colors`, a little changed."""
        base = colors[int(self.rng.integers(len(colors)))]
        shift = self.rng.normal(0.0, spread * 0.6) + self.rng.normal(0.0, spread * 0.5, 3)
        return to_color(part + move for part, move in zip(base, shift, strict=True))

    def tint(self, color: Sequence[float], z: float = 0.0, gain: float = 1.0) -> Color:
        """A thing's color in this light, paler with distance. `gain` is its side's brightness."""
        haze = 1.0 - math.exp(-z / 170.0)
        return to_color(
            part * gain * light * (1.0 - haze) + sky * haze
            for part, light, sky in zip(color, self.light.gain, self.light.sky_low, strict=True)
        )

    def fill(self, points: Sequence[Point], color: Color, label: int | None = None) -> None:
        """A polygon given in oversampled pixels."""
        self._picture.polygon(points, fill=color)
        if label is not None:
            self._labels.polygon(points, fill=label)

    def polygon(self, places: Iterable[Place], color: Color, label: int | None = None) -> None:
        """A polygon in space."""
        self.fill([self.at(*place) for place in places], color, label)

    def upright(
        self, points: Iterable[Point], z: float, color: Color, label: int | None = None
    ) -> None:
        """A polygon of points (x, y) that faces the camera."""
        self.polygon([(x, y, z) for x, y in points], color, label)

    def box(self, x: Point, y: Point, z: float, color: Color, label: int | None = None) -> None:
        """A rectangle that faces the camera: x and y are its ends in meters."""
        corners = ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))
        self.upright(corners, z, color, label)

    def disc(self, place: Place, radius: float, color: Color, label: int | None = None) -> None:
        """A ball of `radius` meters."""
        x, y = self.at(*place)
        reach = radius * self.focal / place[2] * self.unit
        bounds = (x - reach, y - reach, x + reach, y + reach)
        self._picture.ellipse(bounds, fill=color)
        if label is not None:
            self._labels.ellipse(bounds, fill=label)

    def ground(
        self, x: Point, z: Point, color: Color, label: int | None = None, lift: float = 0.0
    ) -> None:
        """A rectangle lying on the ground, or `lift` meters above it."""
        near, far = max(z[0], NEAR), max(z[1], NEAR)
        corners = ((x[0], near), (x[1], near), (x[1], far), (x[0], far))
        self.polygon([(a, lift, b) for a, b in corners], color, label)


class Shadows:
    """The shadows on the ground: one layer, softened once, laid under everything that stands."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.layer = Image.new("L", canvas.size, 0)
        self._draw = ImageDraw.Draw(self.layer)

    def fill(self, points: Iterable[Point], strength: int | None = None) -> None:
        """A polygon of points (x, z) on the ground, as dark as the light makes it."""
        outline = [self.canvas.at(x, 0.0, max(z, NEAR)) for x, z in points]
        self._draw.polygon(outline, fill=strength or self.canvas.light.shadow)

    def area(self, x: Point, z: Point, strength: int | None = None) -> None:
        """A rectangle on the ground."""
        self.fill([(x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1])], strength)

    def upright(self, x: float, z: float, half: float, height: float, crown: float = 0.0) -> None:
        """The shadow of a thing of this half width and height; `crown` is the radius of a ball."""
        sun = self.canvas.light.sun
        if sun == 0:
            self.area((x - half * 1.5, x + half * 1.5), (z - half, z + half * 1.5))
            return
        end, far = x - sun * height * 0.9, z + height * 0.25
        self.fill([(x - half, z), (x + half, z), (end + half, far), (end - half, far)])
        if crown:
            turn = [2 * math.pi * i / 14 for i in range(14)]
            self.fill([(end + crown * math.cos(t), far + crown * math.sin(t)) for t in turn])

    def lay(self) -> None:
        """Darken the image where shadows fall."""
        soft = self.layer.filter(ImageFilter.BoxBlur(self.canvas.unit * 0.7))
        self.canvas.image.paste(self.canvas.tint((22, 24, 34)), mask=soft)


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, *, cells: float
) -> NDArray[np.float32]:
    """(height, width) noise of std about 1, with about `cells` blobs from top to bottom."""
    shape = max(2, round(cells)), max(2, round(cells * width / height))
    coarse = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    field = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, dtype=np.float32) * 1.3
