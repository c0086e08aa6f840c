"""Light, projection and canvas: positions in meters become pixels of an image and its mask."""

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
Point3D = tuple[float, float, float]
"""(x, y, z) in meters: x to the right of the camera, y above the ground, z ahead."""


@dataclass(frozen=True)
class Light:
    """The light at a time of day.

    Attributes:
        sky_top: RGB color of the sky at the zenith, 0..255.
        sky_low: RGB color of the sky at the horizon.
        gain: Factors for the RGB colors of objects.
        sun: Side of the sun: -1 left, 1 right, 0 behind clouds.
        shadow_opacity: Opacity of shadows, 0..255.
        lit_windows: Fraction of windows with a light inside.
        clouds: Amount of clouds, 0..1.
    """

    sky_top: Color
    sky_low: Color
    gain: tuple[float, float, float]
    sun: int
    shadow_opacity: int
    lit_windows: float
    clouds: float


def sample_light(rng: np.random.Generator) -> Light:
    """Sample clear sky (the most frequent), overcast sky, low sun or dusk."""
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


def to_color(channels: Iterable[float]) -> Color:
    """Clip three channels to 0..255 and truncate them to integers."""
    red, green, blue = (int(min(255.0, max(0.0, channel))) for channel in channels)
    return red, green, blue


class Canvas:
    """An image and its mask, drawn together through one camera.

    A shape with a label is drawn into both. A shape without one is a detail of the object below it
    and is drawn into the image only.

    Attributes:
        unit: Oversampled pixels per row; an image has ROWS rows at any resolution.
        size: (width, height) in oversampled pixels.
        columns: Width of the image, in rows.
        horizon: Row of the horizon.
        vanishing: Column of the vanishing point.
        focal: Focal length, in rows.
        camera_height: Meters above the ground.
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
        self.camera_height = float(rng.uniform(1.7, 2.6))
        roll = math.radians(float(rng.normal(0.0, 0.9)))
        self._cos, self._sin = math.cos(roll), math.sin(roll)
        self.image = Image.new("RGB", self.size)
        self.mask = Image.new("L", self.size, SKY)
        self._image_draw = ImageDraw.Draw(self.image)
        self._mask_draw = ImageDraw.Draw(self.mask)

    def project(self, x: float, y: float, z: float) -> Point:
        """Project a position to oversampled pixels."""
        scale = self.focal / z
        right, down = x * scale, (self.camera_height - y) * scale
        return (
            (self.vanishing + right * self._cos - down * self._sin) * self.unit,
            (self.horizon + right * self._sin + down * self._cos) * self.unit,
        )

    def meters(self, rows: float, z: float) -> float:
        """The length in meters of `rows` (of 144) at depth z."""
        return rows * z / self.focal

    def extent(self, z: float) -> float:
        """Distance in meters to the farther side of the image at depth z."""
        return self.meters(max(self.vanishing, self.columns - self.vanishing), z)

    def visible_height(self, z: float) -> float:
        """Height in meters of the upper edge of the image at depth z."""
        return self.camera_height + self.meters(self.horizon + 8, z)

    def choose(self, colors: Sequence[Color], spread: float = 12.0) -> Color:
        """Choose one of `colors` and vary it slightly."""
        base = colors[int(self.rng.integers(len(colors)))]
        shift = self.rng.normal(0.0, spread * 0.6) + self.rng.normal(0.0, spread * 0.5, 3)
        return to_color(channel + change for channel, change in zip(base, shift, strict=True))

    def shade(self, color: Sequence[float], z: float = 0.0, gain: float = 1.0) -> Color:
        """The color of a surface in this light, paler with distance. `gain` is its brightness."""
        haze = 1.0 - math.exp(-z / 170.0)
        return to_color(
            channel * gain * light * (1.0 - haze) + sky * haze
            for channel, light, sky in zip(color, self.light.gain, self.light.sky_low, strict=True)
        )

    def fill(self, points: Sequence[Point], color: Color, label: int | None = None) -> None:
        """Draw a polygon given in oversampled pixels."""
        self._image_draw.polygon(points, fill=color)
        if label is not None:
            self._mask_draw.polygon(points, fill=label)

    def polygon(self, corners: Iterable[Point3D], color: Color, label: int | None = None) -> None:
        """Draw a polygon in space."""
        self.fill([self.project(*corner) for corner in corners], color, label)

    def facing_polygon(
        self, points: Iterable[Point], z: float, color: Color, label: int | None = None
    ) -> None:
        """Draw a polygon of points (x, y) that faces the camera."""
        self.polygon([(x, y, z) for x, y in points], color, label)

    def box(self, x: Point, y: Point, z: float, color: Color, label: int | None = None) -> None:
        """Draw a rectangle that faces the camera, between two values of x and of y in meters."""
        corners = ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))
        self.facing_polygon(corners, z, color, label)

    def disc(self, center: Point3D, radius: float, color: Color, label: int | None = None) -> None:
        """Draw a sphere of `radius` meters."""
        x, y = self.project(*center)
        pixels = radius * self.focal / center[2] * self.unit
        bounds = (x - pixels, y - pixels, x + pixels, y + pixels)
        self._image_draw.ellipse(bounds, fill=color)
        if label is not None:
            self._mask_draw.ellipse(bounds, fill=label)

    def ground(
        self, x: Point, z: Point, color: Color, label: int | None = None, lift: float = 0.0
    ) -> None:
        """Draw a horizontal rectangle on the ground, or `lift` meters above it."""
        near, far = max(z[0], NEAR), max(z[1], NEAR)
        corners = ((x[0], near), (x[1], near), (x[1], far), (x[0], far))
        self.polygon([(a, lift, b) for a, b in corners], color, label)


class Shadows:
    """The shadows on the ground: one layer, blurred once and drawn before all objects."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.layer = Image.new("L", canvas.size, 0)
        self._draw = ImageDraw.Draw(self.layer)

    def fill(self, points: Iterable[Point], strength: int | None = None) -> None:
        """Add a polygon of points (x, z) on the ground; the light sets the default strength."""
        polygon = [self.canvas.project(x, 0.0, max(z, NEAR)) for x, z in points]
        self._draw.polygon(polygon, fill=strength or self.canvas.light.shadow_opacity)

    def area(self, x: Point, z: Point, strength: int | None = None) -> None:
        """Add a rectangle on the ground."""
        self.fill([(x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1])], strength)

    def cast(self, x: float, z: float, half: float, height: float, crown: float = 0.0) -> None:
        """Add the shadow of an upright object of half width `half`, with a crown of this radius."""
        sun = self.canvas.light.sun
        if sun == 0:
            self.area((x - half * 1.5, x + half * 1.5), (z - half, z + half * 1.5))
            return
        end, far = x - sun * height * 0.9, z + height * 0.25
        self.fill([(x - half, z), (x + half, z), (end + half, far), (end - half, far)])
        if crown:
            angles = [2 * math.pi * i / 14 for i in range(14)]
            self.fill([(end + crown * math.cos(t), far + crown * math.sin(t)) for t in angles])

    def apply(self) -> None:
        """Darken the image in the shadows."""
        blurred = self.layer.filter(ImageFilter.BoxBlur(self.canvas.unit * 0.7))
        self.canvas.image.paste(self.canvas.shade((22, 24, 34)), mask=blurred)


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, *, cells: float
) -> NDArray[np.float32]:
    """Sample noise (height, width) with std of about 1 and about `cells` blobs per height."""
    shape = max(2, round(cells)), max(2, round(cells * width / height))
    coarse = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    field = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, dtype=np.float32) * 1.3
