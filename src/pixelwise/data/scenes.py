"""Generated street scenes with exact masks: data for the demo and the tests, without a download.

A scene is a small world in metres: a straight street, rows of houses, and things that stand on
the ground, seen by a pinhole camera. Everything is drawn from far to near, once into the picture
and once into the mask, so what hides what is the same in both. The classes share colours on
purpose (grey cars on a grey road, brown houses behind brown trunks): a network has to learn shapes
and places too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pixelwise.data.classes import Classes, Colour, write_classes_toml
from pixelwise.errors import InputError

SCENE_CLASSES = Classes.make(
    ["sky", "building", "road", "pavement", "vegetation", "car", "pole", "person"],
    colours=[
        (116, 178, 222),
        (164, 120, 96),
        (92, 90, 108),
        (206, 186, 168),
        (84, 146, 76),
        (52, 84, 190),
        (240, 196, 48),
        (216, 58, 82),
    ],
    ignore=255,
)
"""What generated masks hold; "pole" is lamps, traffic lights and signs with their posts."""

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, CAR, POLE, PERSON = SCENE_CLASSES.values
VOID = SCENE_CLASSES.file_ignore

MIN_SIZE = 16
SPLITS = ("train", "val", "test")

ROWS = 144.0  # lengths in the picture are in 1/144 of its height, so every size shows one scene
OVERSAMPLING = 3  # odd, so that the middle sample of each block lies on the pixel's centre
THIN = 4.6  # no pole is thinner, in ROWS: less would be lost at a decoder's stride of 4
NEAR, FAR = 1.6, 95.0  # metres; nothing is drawn nearer, no house stands farther

Point = tuple[float, float]

WALLS: tuple[Colour, ...] = (
    (156, 88, 70),
    (122, 92, 72),
    (206, 186, 152),
    (150, 148, 146),
    (222, 216, 204),
    (214, 190, 128),
    (128, 140, 154),
    (196, 158, 142),
    (104, 102, 104),
)
PAINTS: tuple[Colour, ...] = (
    (118, 120, 124),
    (176, 178, 182),
    (226, 226, 224),
    (38, 40, 46),
    (160, 34, 34),
    (38, 66, 128),
    (86, 108, 78),
    (188, 140, 62),
    (92, 74, 62),
)
CLOTHES: tuple[Colour, ...] = (
    (40, 44, 58),
    (62, 76, 118),
    (172, 48, 44),
    (206, 198, 186),
    (98, 92, 88),
    (76, 112, 84),
    (206, 160, 60),
    (128, 78, 110),
    (122, 88, 62),
)
SKINS: tuple[Colour, ...] = ((236, 196, 168), (204, 152, 116), (148, 100, 72), (96, 66, 50))
LEAVES: tuple[Colour, ...] = (
    (78, 120, 50),
    (98, 132, 58),
    (58, 98, 54),
    (104, 112, 62),
    (148, 122, 48),
)
SIGNS: tuple[Colour, ...] = ((186, 34, 38), (34, 74, 156), (230, 190, 50), (228, 228, 224))


@dataclass(frozen=True)
class _Light:
    """A time of day. Colours are RGB, 0..255; gains multiply the colours of things."""

    sky_top: Colour
    sky_low: Colour
    gain: tuple[float, float, float]
    sun: int  # the side the sun stands on: -1 left, 1 right, 0 behind clouds
    shadow: int  # how dark shadows are, 0..255
    lit: float  # the share of windows with a lamp behind them
    clouds: float  # 0..1


def _light(rng: np.random.Generator) -> _Light:
    sun = -1 if rng.random() < 0.5 else 1
    hour = rng.random()
    if hour < 0.4:
        blue = int(rng.integers(-14, 15))
        top, low = (92, 142 + blue // 2, 206 + blue), (190, 212, 230)
        return _Light(top, low, (1.05, 1.02, 0.98), sun, 120, 0.0, float(rng.random()))
    if hour < 0.66:
        grey = int(rng.integers(-25, 20))
        top, low = (158 + grey, 166 + grey, 176 + grey), (204 + grey, 208 + grey, 210 + grey)
        return _Light(top, low, (0.88, 0.9, 0.93), 0, 50, 0.04, 0.5)
    if hour < 0.86:
        top, low = (112, 138, 184), (244, 204, 160)
        return _Light(top, low, (1.08, 0.93, 0.78), sun, 130, 0.1, float(rng.random()))
    top, low = (42, 54, 96), (196, 132, 116)
    return _Light(top, low, (0.56, 0.58, 0.72), 0, 60, 0.45, 0.3)


class _Canvas:
    """A picture and its mask, drawn together through one camera.

    Places are (x, y, z) in metres: x to the right of the camera, y above the ground, z ahead.
    """

    def __init__(self, rng: np.random.Generator, light: _Light, height: int, width: int) -> None:
        self.rng = rng
        self.light = light
        self.unit = OVERSAMPLING * height / ROWS
        self.size = (OVERSAMPLING * width, OVERSAMPLING * height)
        self.columns = ROWS * width / height
        self.horizon = float(rng.uniform(56, 72))
        self.vanishing = self.columns * float(rng.uniform(0.36, 0.64))
        self.focal = float(rng.uniform(105, 145))
        self.eye = float(rng.uniform(1.7, 2.6))  # metres above the ground
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

    def metres(self, rows: float, z: float) -> float:
        """The length that covers `rows` (of 144) at depth z."""
        return rows * z / self.focal

    def edge(self, z: float) -> float:
        """How far to the side, in metres, the picture reaches at depth z."""
        return self.metres(max(self.vanishing, self.columns - self.vanishing), z)

    def tint(self, colour: Sequence[float], z: float = 0.0, gain: float = 1.0) -> Colour:
        """A thing's colour in this light, paler with distance. `gain` is its side's brightness."""
        haze = 1.0 - math.exp(-z / 170.0)
        red, green, blue = (
            min(255, int(part * gain * light * (1.0 - haze) + sky * haze))
            for part, light, sky in zip(colour, self.light.gain, self.light.sky_low, strict=True)
        )
        return red, green, blue

    def polygon(self, points: Sequence[Point], colour: Colour, label: int | None = None) -> None:
        """A filled polygon; without a label it is detail on what is there already."""
        self._picture.polygon(points, fill=colour)
        if label is not None:
            self._labels.polygon(points, fill=label)

    def box(self, x: Point, y: Point, z: float, colour: Colour, label: int | None = None) -> None:
        """A rectangle that faces the camera: x and y are its ends in metres."""
        corners = ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))
        self.polygon([self.at(a, b, z) for a, b in corners], colour, label)

    def disc(
        self, place: tuple[float, float, float], radius: float, colour: Colour, label: int | None
    ) -> None:
        """A ball of `radius` metres."""
        x, y = self.at(*place)
        reach = radius * self.focal / place[2] * self.unit
        bounds = (x - reach, y - reach, x + reach, y + reach)
        self._picture.ellipse(bounds, fill=colour)
        if label is not None:
            self._labels.ellipse(bounds, fill=label)

    def ground(
        self, x: Point, z: Point, colour: Colour, label: int | None, lift: float = 0.0
    ) -> None:
        """A rectangle lying on the ground, or `lift` metres above it."""
        near, far = max(z[0], NEAR), max(z[1], NEAR)
        corners = ((x[0], near), (x[1], near), (x[1], far), (x[0], far))
        self.polygon([self.at(a, lift, b) for a, b in corners], colour, label)

    def pick(self, colours: Sequence[Colour], spread: float = 12.0) -> Colour:
        """One of `colours`, a little changed."""
        base = colours[int(self.rng.integers(len(colours)))]
        shift = self.rng.normal(0.0, spread * 0.6) + self.rng.normal(0.0, spread * 0.5, 3)
        red, green, blue = (
            int(min(255.0, max(0.0, part + move))) for part, move in zip(base, shift, strict=True)
        )
        return red, green, blue


@dataclass(frozen=True)
class _Street:
    """A plan of the street, in metres."""

    half: float  # from the middle of the road to its kerb
    wall: float  # from the middle of the road to the houses
    shift: float  # the camera is this far right of the road's middle
    crossing: float | None  # depth at which another street crosses
    across: float  # that street's width


def _sky(canvas: _Canvas) -> None:
    light, rng = canvas.light, canvas.rng
    share = np.linspace(0.0, 1.0, 64)[:, None] * (ROWS / canvas.horizon)
    share = np.minimum(share, 1.0) ** 1.3
    column = np.array(light.sky_top) * (1 - share) + np.array(light.sky_low) * share
    strip = Image.fromarray(column.astype(np.uint8)[:, None, :])
    canvas.image.paste(strip.resize(canvas.size, Image.Resampling.BILINEAR))
    if light.clouds > 0.25:
        width, height = canvas.size
        field = _smooth_noise(rng, height // 6, width // 6, cells=5.0)
        field += 0.5 * _smooth_noise(rng, height // 6, width // 6, cells=12.0)
        field += 0.25 * _smooth_noise(rng, height // 6, width // 6, cells=26.0)
        cover = np.clip((field - 1.0 + light.clouds) * 95.0, 0.0, 190.0).astype(np.uint8)
        layer = Image.fromarray(cover).resize(canvas.size, Image.Resampling.BILINEAR)
        bright = np.minimum(np.array(light.sky_low) * 1.12, 255).astype(int).tolist()
        canvas.image.paste((bright[0], bright[1], bright[2]), mask=layer)


def _ground(canvas: _Canvas, street: _Street) -> None:
    rng = canvas.rng
    asphalt = canvas.pick([(88, 88, 92), (104, 102, 100), (72, 74, 80)], 6)
    slabs = canvas.pick([(158, 154, 148), (146, 138, 128), (128, 128, 130)], 8)
    kerb = tuple(part + 26 for part in slabs)
    line = canvas.tint((226, 224, 214))
    left, right = street.shift - street.half, street.shift + street.half
    wide = canvas.edge(600.0)
    canvas.ground((-wide, wide), (NEAR, 600.0), canvas.tint(slabs, 12.0), PAVEMENT)
    canvas.ground((-60, 60), (NEAR, 30.0), canvas.tint(slabs), None)
    # Joints between the slabs: lines along and across, on the pavements only.
    joint = canvas.tint(slabs, 0.0, 0.84)
    z = 3.0
    while z < 22:
        canvas.ground((-street.wall - 8, street.wall + 8), (z, z + 0.05), joint, None)
        z += 1.5
    canvas.ground((left, right), (NEAR, 600.0), canvas.tint(asphalt, 10.0), ROAD)
    canvas.ground((left, right), (NEAR, 25.0), canvas.tint(asphalt), None)
    for edge in (left, right):
        canvas.ground((edge - 0.12, edge + 0.12), (NEAR, FAR), canvas.tint(kerb), PAVEMENT)
    for _ in range(int(rng.integers(0, 4))):  # repairs and stains
        x, z = float(rng.uniform(left, right - 1.5)), float(rng.uniform(3, 20))
        patch = canvas.tint(asphalt, 0.0, float(rng.uniform(0.8, 1.15)))
        canvas.ground((x, x + float(rng.uniform(0.5, 1.5))), (z, z + 2.5), patch, None)
    start, step = float(rng.uniform(0, 5)), float(rng.uniform(4.5, 7))
    solid = rng.random() < 0.2
    while start < 60:
        end = start + (step if solid else step * 0.5)
        canvas.ground((street.shift - 0.08, street.shift + 0.08), (start, end), line, None)
        start += step
    if rng.random() < 0.5:
        for edge in (left + 0.35, right - 0.45):
            canvas.ground((edge, edge + 0.1), (NEAR, 60.0), line, None)
    if street.crossing is not None:
        near, far = street.crossing, street.crossing + street.across
        shade = canvas.tint(asphalt, near)
        canvas.ground((-wide, wide), (near - 0.15, far + 0.15), canvas.tint(kerb, near), PAVEMENT)
        canvas.ground((-wide, wide), (near, far), shade, ROAD)
        canvas.ground((left, right), (near - 0.3, far + 0.3), shade, ROAD)
    if street.crossing is not None or rng.random() < 0.3:  # a zebra crossing
        z = float(rng.uniform(5, 12)) if street.crossing is None else street.crossing - 4.0
        x = left + 0.4
        while x < right - 0.5:
            canvas.ground((x, x + 0.45), (z, z + 2.8), line, None)
            x += 0.95


def _backdrop(canvas: _Canvas) -> None:
    """What closes the street far away: blocks of houses and tree tops, pale with haze."""
    rng = canvas.rng
    z = 260.0
    edge = canvas.edge(z) * 1.1
    x = -edge
    while x < edge:
        width = float(rng.uniform(10, 34))
        top = float(rng.uniform(8, 46))
        colour = canvas.pick(WALLS)
        canvas.box((x, x + width), (-2, top), z, canvas.tint(colour, z * 0.6), BUILDING)
        x += width
    z = 190.0
    edge = canvas.edge(z) * 1.1
    x = -edge
    while x < edge:
        if rng.random() < 0.35:
            radius = float(rng.uniform(4, 8))
            colour = canvas.tint(canvas.pick(LEAVES), z * 0.7)
            canvas.box((x - radius * 0.8, x + radius * 0.8), (-1, 5), z, colour, VEGETATION)
            canvas.disc((x, radius * 0.9, z), radius, colour, VEGETATION)
        x += 10.0


def _house(canvas: _Canvas, side: int, wall: float, z: Point, height: float) -> None:
    """A house beside the street: the front along it, and the gable towards the camera."""
    rng, light = canvas.rng, canvas.light
    near, far = max(z[0], NEAR), z[1]
    paint = canvas.pick(WALLS)
    front_gain = {0: 0.95, side: 0.66, -side: 1.12}[light.sun]
    gable_gain = 0.82
    outer = wall + side * 14.0
    pane: Colour = (58, 68, 82)
    if light.lit < 0.3:
        red, green, blue = (
            (2 * glass_part + sky_part) // 3
            for glass_part, sky_part in zip(pane, light.sky_top, strict=True)
        )
        pane = (red, green, blue)
    storey = float(rng.uniform(2.8, 3.4))
    bay = float(rng.uniform(2.0, 3.2))
    opening = bay * float(rng.uniform(0.4, 0.6))
    shop = rng.random() < 0.4
    roof = canvas.pick([(110, 66, 54), (84, 80, 82), (72, 62, 58)])
    pitched = rng.random() < 0.45
    top = height

    def upright(a: float, b: float, low: float, high: float) -> list[Point]:
        return [canvas.at(wall, y, d) for d, y in ((a, low), (b, low), (b, high), (a, high))]

    def glass(depth: float) -> tuple[Colour, float]:
        if rng.random() < light.lit:
            return (250, 214, 140), 1.0 / light.gain[0]
        return pane, float(rng.uniform(0.75, 1.2))

    if pitched:
        ridge = height + 2.4
        middle = wall + side * 4.0
        slope = [
            canvas.at(wall, height, near),
            canvas.at(wall, height, far),
            canvas.at(middle, ridge, far),
            canvas.at(middle, ridge, near),
        ]
        gable = [
            canvas.at(wall, height, near),
            canvas.at(middle, ridge, near),
            canvas.at(wall + side * 8.0, height, near),
        ]
        canvas.polygon(gable, canvas.tint(paint, near, gable_gain), BUILDING)
        canvas.polygon(slope, canvas.tint(roof, near, front_gain), BUILDING)
        outer = wall + side * 8.0
    canvas.box((wall, outer), (-0.3, top), near, canvas.tint(paint, near, gable_gain), BUILDING)
    canvas.polygon(
        upright(near, far, -0.1, top), canvas.tint(paint, (near + far) / 2, front_gain), BUILDING
    )
    if not pitched:
        trim = canvas.tint(paint, near, front_gain * 1.2)
        canvas.polygon(upright(near, far, top - 0.5, top), trim, None)
    canvas.polygon(upright(near, far, 0.0, 0.6), canvas.tint(paint, near, front_gain * 0.7), None)

    depth = max(near + 0.6, abs(wall) * canvas.focal / max(canvas.columns, 1.0) * 0.8)
    depth = near + 0.6 + max(0, math.ceil((depth - near - 0.6) / bay)) * bay
    frame = canvas.tint(paint, near, front_gain * 1.22)
    while depth + opening < far - 0.3:
        if canvas.focal / depth * opening * abs(wall) / depth < 0.5:  # narrower than half a pixel
            break
        ceiling = canvas.eye + canvas.metres(canvas.horizon + 8, depth)
        y = 0.9
        if shop:
            colour, gain = glass(depth)
            window = upright(depth - 0.3, depth + opening + 0.4, 0.5, 2.5)
            canvas.polygon(window, canvas.tint(colour, depth, gain), None)
            y += storey
        while y + 1.6 < min(top, ceiling):
            colour, gain = glass(depth)
            if depth < 20:
                surround = upright(depth - 0.12, depth + opening + 0.12, y - 0.2, y + 1.7)
                canvas.polygon(surround, frame, None)
            window = upright(depth, depth + opening, y, y + 1.55)
            canvas.polygon(window, canvas.tint(colour, depth, gain), None)
            y += storey
        depth += bay
    if shop:
        awning = canvas.pick(SIGNS)
        canvas.polygon(
            upright(near, far - 0.2, 2.6, 3.2), canvas.tint(awning, near, front_gain * 0.85), None
        )
    if near > 6 and canvas.metres(1.2, near) < 1.0:
        x = 1.2
        while x + opening < abs(outer - wall) - 0.6 and abs(wall) + x < canvas.edge(near) * 1.1:
            ceiling = canvas.eye + canvas.metres(canvas.horizon + 8, near)
            y = 0.9
            while y + 1.6 < min(top, ceiling):
                colour, gain = glass(near)
                ends = (wall + side * x, wall + side * (x + opening))
                canvas.box(ends, (y, y + 1.5), near, canvas.tint(colour, near, gain * 0.9))
                y += storey
            x += bay


def _tree(canvas: _Canvas, x: float, z: float, height: float, leaf: Colour) -> None:
    rng = canvas.rng
    trunk = max(0.14, canvas.metres(THIN, z) / 2)
    bark = canvas.pick([(92, 70, 54), (112, 92, 74), (74, 62, 54)], 8)
    radius = height * float(rng.uniform(0.26, 0.34))
    middle = height - radius
    canvas.box((x - trunk, x + trunk), (0, middle), z, canvas.tint(bark, z), VEGETATION)
    shaded = (x - trunk, x) if canvas.light.sun > 0 else (x, x + trunk)
    canvas.box(shaded, (0, middle), z, canvas.tint(bark, z, 0.7), None)
    _leaves(canvas, (x, middle, z), (radius, radius * 0.95), leaf, clumps=9)


def _leaves(
    canvas: _Canvas,
    place: tuple[float, float, float],
    reach: Point,
    leaf: Colour,
    *,
    clumps: int,
) -> None:
    """A crown: dark clumps first, then lighter ones towards the light."""
    rng, (x, y, z) = canvas.rng, place
    size = min(reach)
    for _ in range(clumps):
        angle, far = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.1, 0.62))
        spot = (x + math.cos(angle) * reach[0] * far, y + math.sin(angle) * reach[1] * far, z)
        ball = size * float(rng.uniform(0.42, 0.62))
        canvas.disc(spot, ball, canvas.tint(leaf, z, float(rng.uniform(0.5, 0.72))), VEGETATION)
    for _ in range(clumps * 4):
        angle, far = float(rng.uniform(0, 2 * math.pi)), math.sqrt(float(rng.random())) * 0.85
        right, up = math.cos(angle) * far, math.sin(angle) * far
        gain = 0.85 + 0.25 * up + 0.15 * right * canvas.light.sun + float(rng.normal(0, 0.12))
        spot = (x + right * reach[0], y + up * reach[1], z)
        ball = size * float(rng.uniform(0.09, 0.2))
        canvas.disc(spot, ball, canvas.tint(leaf, z, max(0.4, gain)), VEGETATION)


def _hedge(canvas: _Canvas, x: float, z: float, length: float, leaf: Colour) -> None:
    steps = max(2, round(length / 0.9))
    for step in range(steps, -1, -1):
        place = (x, 0.55, z + length * step / steps)
        _leaves(canvas, place, (0.6, 0.55), leaf, clumps=3)


def _car(canvas: _Canvas, x: float, z: float, paint: Colour, *, rear: bool, van: bool) -> None:
    """A car along the street, seen from behind (`rear`) or from the front."""
    light = canvas.light
    half, length = 0.88, 4.1
    belt, roof = (1.05, 2.05) if van else (0.86, 1.44)
    ahead = z + length
    flank = x - half if x > 0 else x + half
    side_gain = {0: 0.86, 1: 1.1 if x < 0 else 0.66, -1: 1.1 if x > 0 else 0.66}[light.sun]
    dark, glass = canvas.tint((26, 26, 28), z), canvas.tint((48, 58, 70), z)

    def lengthwise(points: Sequence[tuple[float, float, float]]) -> list[Point]:
        return [canvas.at(*point) for point in points]

    canvas.box((x - half, x + half), (0.12, 0.4), z, dark, CAR)
    canvas.polygon(
        lengthwise([(flank, 0.12, z), (flank, 0.12, ahead), (flank, 0.4, ahead), (flank, 0.4, z)]),
        dark,
        CAR,
    )
    tread = (x - half, x + half - 0.24)
    for left in tread:
        canvas.box((left, left + 0.24), (0.0, 0.4), z, dark, CAR)
    canvas.polygon(
        lengthwise([(flank, 0.3, z), (flank, 0.3, ahead), (flank, belt, ahead), (flank, belt, z)]),
        canvas.tint(paint, z, side_gain),
        CAR,
    )
    for axle in (z + 0.75, z + 3.25):
        for radius, colour in ((0.34, dark), (0.17, canvas.tint((150, 150, 152), z, side_gain))):
            turn = [2 * math.pi * i / 12 for i in range(12)]
            rim = [(flank, 0.34 + radius * math.sin(t), axle + radius * math.cos(t)) for t in turn]
            canvas.polygon(lengthwise(rim), colour, CAR)
    canvas.ground((x - half, x + half), (z, ahead), canvas.tint(paint, z, 1.12), CAR, lift=belt)
    # The cabin: narrower at the top, its windows a little inside its faces.
    low0, low1 = (
        (z + 0.15, z + 3.6) if van else ((z + 0.25, z + 3.1) if rear else (z + 0.9, z + 3.9))
    )
    high0, high1 = (z + 0.25, z + 3.2) if van else (low0 + 0.45, low1 - 0.6)
    wide, slim = half - 0.05, half - (0.1 if van else 0.2)
    toward = 1 if flank > x else -1
    cabin_side = [
        (x + toward * wide, belt, low0),
        (x + toward * wide, belt, low1),
        (x + toward * slim, roof, high1),
        (x + toward * slim, roof, high0),
    ]
    canvas.polygon(lengthwise(cabin_side), canvas.tint(paint, z, side_gain), CAR)
    panes = [
        (x + toward * wide, belt + 0.06, low0 + 0.3),
        (x + toward * wide, belt + 0.06, low1 - 0.3),
        (x + toward * slim, roof - 0.1, high1 - 0.1),
        (x + toward * slim, roof - 0.1, high0 + 0.15),
    ]
    canvas.polygon(lengthwise(panes), canvas.tint((48, 58, 70), z, side_gain), None)
    if canvas.eye > roof:
        canvas.polygon(
            lengthwise(
                [
                    (x - slim, roof, high0),
                    (x + slim, roof, high0),
                    (x + slim, roof, high1),
                    (x - slim, roof, high1),
                ]
            ),
            canvas.tint(paint, z, 1.18),
            CAR,
        )
    face = [(x - wide, belt, low0), (x + wide, belt, low0), (x + slim, roof, high0)]
    canvas.polygon(lengthwise([*face, (x - slim, roof, high0)]), canvas.tint(paint, z, 0.95), CAR)
    inner = [(x - wide + 0.1, belt + 0.05, low0), (x + wide - 0.1, belt + 0.05, low0)]
    inner += [(x + slim - 0.08, roof - 0.09, high0), (x - slim + 0.08, roof - 0.09, high0)]
    canvas.polygon(lengthwise(inner), glass, None)
    canvas.box((x - half, x + half), (0.3, belt), z, canvas.tint(paint, z, 0.92), CAR)
    canvas.box((x - half, x + half), (0.3, 0.44), z, canvas.tint(paint, z, 0.55), None)
    canvas.box((x - 0.26, x + 0.26), (0.42, 0.55), z, canvas.tint((226, 224, 206), z), None)
    lamp: Colour = (196, 36, 34) if rear else (250, 244, 214)
    glow = 1.0 / max(light.gain) if light.lit > 0.3 else 0.95
    for left in (x - half + 0.05, x + half - 0.35):
        ends = (left, left + 0.3)
        canvas.box(ends, (belt - 0.3, belt - 0.12), z, canvas.tint(lamp, z, glow), None)


def _car_across(canvas: _Canvas, x: float, z: float, paint: Colour, heading: int) -> None:
    """A car that crosses the street, seen from its side. `heading` is 1 to the right."""
    dark = canvas.tint((26, 26, 28), z)
    glass = canvas.tint((54, 66, 80), z)
    canvas.box((x - 2.0, x + 2.0), (0.18, 0.4), z, dark, CAR)

    def outline(points: Sequence[Point]) -> list[Point]:
        return [canvas.at(x + heading * a, b, z) for a, b in points]

    body = [(-2.1, 0.32), (2.1, 0.32), (2.12, 0.66), (1.2, 0.88), (-2.0, 0.92), (-2.12, 0.6)]
    canvas.polygon(outline(body), canvas.tint(paint, z, 0.95), CAR)
    cabin = [(-1.75, 0.9), (1.15, 0.86), (0.45, 1.42), (-1.1, 1.42)]
    canvas.polygon(outline(cabin), canvas.tint(paint, z, 1.1), CAR)
    for pane in (
        [(-1.45, 0.93), (-0.4, 0.93), (-0.4, 1.34), (-1.02, 1.34)],
        [(-0.3, 0.93), (0.88, 0.9), (0.38, 1.34), (-0.3, 1.34)],
    ):
        canvas.polygon(outline(pane), glass, None)
    canvas.box((x - 2.08, x + 2.08), (0.32, 0.42), z, canvas.tint(paint, z, 0.6), None)
    for wheel in (-1.3, 1.3):
        canvas.disc((x + wheel, 0.33, z), 0.34, dark, CAR)
        canvas.disc((x + wheel, 0.33, z), 0.18, canvas.tint((156, 156, 158), z), None)


def _person(canvas: _Canvas, x: float, z: float, height: float, stride: float) -> None:
    rng = canvas.rng
    coat, legs = canvas.pick(CLOTHES), canvas.pick(CLOTHES[:5])
    skin = canvas.tint(canvas.pick(SKINS, 5), z)
    unit = height / 1.75
    shoulder, hip, neck = 1.42 * unit, 0.84 * unit, 1.5 * unit
    broad = max(0.25 * unit, canvas.metres(THIN, z) / 2)
    limb = max(0.1 * unit, canvas.metres(2.4, z) / 2)
    for foot, gain in ((-stride, 0.8), (stride, 1.0)):
        leg = [
            (x - limb * 1.1, hip),
            (x + limb * 1.1, hip),
            (x + foot + limb, 0),
            (x + foot - limb, 0),
        ]
        points = [canvas.at(a, b, z) for a, b in leg]
        canvas.polygon(points, canvas.tint(legs, z, gain), PERSON)
        canvas.box(
            (x + foot - limb, x + foot + limb * 1.5),
            (0, 0.09),
            z,
            canvas.tint((34, 30, 30), z),
            PERSON,
        )
    swing = stride * 0.8
    for hand, side, gain in ((swing, -1, 0.78), (-swing, 1, 0.9)):
        a = x + side * broad * 0.95
        arm = [(a - limb * 0.7, shoulder), (a + limb * 0.7, shoulder)]
        arm += [(a + hand + limb * 0.6, hip - 0.04), (a + hand - limb * 0.6, hip - 0.04)]
        canvas.polygon([canvas.at(p, q, z) for p, q in arm], canvas.tint(coat, z, gain), PERSON)
    torso = [(x - broad * 0.8, hip - 0.06), (x + broad * 0.8, hip - 0.06)]
    torso += [(x + broad, shoulder), (x + broad * 0.5, neck), (x - broad * 0.5, neck)]
    torso += [(x - broad, shoulder)]
    canvas.polygon([canvas.at(a, b, z) for a, b in torso], canvas.tint(coat, z), PERSON)
    head = max(0.13 * unit, canvas.metres(1.7, z))
    crown = height - head
    canvas.box((x - head * 0.5, x + head * 0.5), (neck - 0.04, crown), z, skin, PERSON)
    hair = canvas.pick([(42, 32, 28), (96, 70, 46), (180, 172, 166), (28, 26, 28)], 6)
    canvas.disc((x, crown, z), head, canvas.tint(hair, z), PERSON)
    canvas.disc((x, crown - head * 0.25, z), head * 0.78, skin, PERSON)
    if rng.random() < 0.3:  # a bag
        side = 1 if rng.random() < 0.5 else -1
        a = x + side * broad * 1.1
        bag = canvas.tint(canvas.pick(CLOTHES), z)
        canvas.box((a - 0.1, a + 0.14), (hip - 0.3, hip + 0.02), z, bag, PERSON)


def _post(canvas: _Canvas, x: float, z: float, top: float, steel: Colour) -> float:
    """An upright post; returns half of its width in metres."""
    half = max(0.055, canvas.metres(THIN, z) / 2)
    canvas.box((x - half, x + half), (0, top), z, canvas.tint(steel, z), POLE)
    shaded = (x, x + half) if canvas.light.sun < 0 else (x - half, x)
    canvas.box(shaded, (0, top), z, canvas.tint(steel, z, 0.72), None)
    return half


def _lamp(canvas: _Canvas, x: float, z: float, steel: Colour) -> None:
    top = float(canvas.rng.uniform(4.6, 6.2))
    half = _post(canvas, x, z, top, steel)
    inward = -1 if x > 0 else 1
    canvas.box((x, x + inward * 1.3), (top - half * 2, top), z, canvas.tint(steel, z), POLE)
    ends = (x + inward * 0.7, x + inward * 1.5)
    low = top - half * 2 - 0.12
    canvas.box(ends, (low, top), z, canvas.tint(steel, z, 0.8), POLE)
    glow = 1.0 / canvas.light.gain[0] if canvas.light.lit > 0.3 else 0.9
    canvas.box(ends, (low, low + 0.12), z, canvas.tint((255, 236, 180), z, glow), POLE)


def _sign(canvas: _Canvas, x: float, z: float, steel: Colour) -> None:
    rng = canvas.rng
    top = float(rng.uniform(2.3, 2.9))
    _post(canvas, x, z, top, steel)
    size = max(0.4, canvas.metres(5.0, z))
    colour = canvas.tint(canvas.pick(SIGNS, 8), z)
    inside = canvas.tint((236, 234, 228), z)
    kind = int(rng.integers(3))
    if kind == 0:
        canvas.disc((x, top, z), size, colour, POLE)
        canvas.disc((x, top, z), size * 0.62, inside, None)
    elif kind == 1:
        for grow, paint in ((1.15, colour), (0.6, inside)):
            corners = [(math.pi / 2 + i * 2 * math.pi / 3) for i in range(3)]
            points = [
                canvas.at(x + math.cos(t) * size * grow, top + math.sin(t) * size * grow, z)
                for t in corners
            ]
            canvas.polygon(points, paint, POLE)
    else:
        canvas.box((x - size, x + size), (top - size, top + size * 0.8), z, colour, POLE)
        canvas.box(
            (x - size * 0.6, x + size * 0.6), (top - size * 0.2, top + size * 0.1), z, inside
        )


def _traffic_light(canvas: _Canvas, x: float, z: float, steel: Colour) -> None:
    top = float(canvas.rng.uniform(2.7, 3.3))
    _post(canvas, x, z, top, steel)
    half = max(0.22, canvas.metres(3.2, z))
    canvas.box(
        (x - half, x + half),
        (top - half * 2, top + half * 3),
        z,
        canvas.tint((34, 36, 38), z),
        POLE,
    )
    on = int(canvas.rng.integers(3))
    for place, colour in enumerate(((70, 220, 120), (250, 190, 60), (240, 60, 48))):
        glow = 1.0 / max(canvas.light.gain) if place == on else 0.25
        spot = (x, top + half * (-1.1 + 1.6 * place), z)
        canvas.disc(spot, half * 0.62, canvas.tint(colour, 0.0, glow), None)


class _Shadows:
    """The shadows on the ground: one layer, softened once, laid under everything that stands."""

    def __init__(self, canvas: _Canvas) -> None:
        self.canvas = canvas
        self.layer = Image.new("L", canvas.size, 0)
        self._draw = ImageDraw.Draw(self.layer)

    def area(self, x: Point, z: Point, lean: Point = (0.0, 0.0), strength: int = 0) -> None:
        """A parallelogram on the ground whose far edge leans by (x, z) metres."""
        near, far = max(z[0], NEAR), max(z[1], NEAR)
        corners = (
            (x[0], near),
            (x[1], near),
            (x[1] + lean[0], far + lean[1]),
            (x[0] + lean[0], far + lean[1]),
        )
        points = [self.canvas.at(a, 0.0, max(b, NEAR)) for a, b in corners]
        self._draw.polygon(points, fill=strength or self.canvas.light.shadow)

    def ball(self, x: float, z: float, radius: float) -> None:
        """The shadow of a crown: an ellipse lying on the ground."""
        turn = [2 * math.pi * i / 14 for i in range(14)]
        points = [
            self.canvas.at(x + radius * math.cos(t), 0.0, max(z + radius * math.sin(t), NEAR))
            for t in turn
        ]
        self._draw.polygon(points, fill=self.canvas.light.shadow)

    def upright(self, x: float, z: float, half: float, height: float, crown: float = 0.0) -> None:
        """The shadow of a thing of this half width and height; `crown` is the radius of a ball."""
        sun = self.canvas.light.sun
        if sun == 0:
            self.area((x - half * 1.5, x + half * 1.5), (z - half, z + half * 1.5))
            return
        lean = (-sun * height * 0.9, height * 0.25)
        self.area((x - half, x + half), (z, z), lean)
        if crown:
            self.ball(x + lean[0], z + lean[1], crown)

    def lay(self) -> None:
        soft = self.layer.filter(ImageFilter.BoxBlur(self.canvas.unit * 0.7))
        self.canvas.image.paste(self.canvas.tint((22, 24, 34)), mask=soft)


Thing = tuple[float, Callable[[], None]]


def _things(canvas: _Canvas, street: _Street, shadows: _Shadows) -> list[Thing]:
    """What stands on the street, each with its depth; their shadows are drawn on the way."""
    rng = canvas.rng
    things: list[Thing] = []
    steel = canvas.pick([(96, 100, 104), (66, 70, 70), (132, 134, 136)], 6)
    left, right = street.shift - street.half, street.shift + street.half

    def kerbside(side: int, inset: float) -> float:
        return (left - inset) if side < 0 else (right + inset)

    def seen(z: float) -> int:
        """The side whose kerb is in view at depth z, by chance where both are."""
        side = -1 if rng.random() < 0.5 else 1
        return side if abs(kerbside(side, 0.8)) < canvas.edge(z) * 0.9 else -side

    leaf = canvas.pick(LEAVES)
    for _ in range(int(rng.integers(2, 6))):
        z, height = float(rng.uniform(9, 42)), float(rng.uniform(4.2, 7.0))
        x = kerbside(seen(z), float(rng.uniform(0.8, 1.4)))
        things.append((z, partial(_tree, canvas, x, z, height, leaf)))
        shadows.upright(x, z, 0.2, height * 0.7, height * 0.28)
    if rng.random() < 0.55:
        side, z = seen(9.0), float(rng.uniform(8, 20))
        wall = street.shift + side * (street.wall - 0.7)
        length = float(rng.uniform(3, 9))
        things.append((z, partial(_hedge, canvas, wall, z, length, canvas.pick(LEAVES))))

    kinds = (_lamp, _sign, _sign, _traffic_light)
    for number in range(int(rng.integers(3, 6))):
        # The first two stand near, so that no scene is without a pole that can be learnt from.
        z = float(rng.uniform(6, 10)) if number < 2 else float(rng.uniform(8, 17))
        x = kerbside(seen(z), float(rng.uniform(0.35, 0.7)))
        kind = kinds[int(rng.integers(len(kinds)))]
        things.append((z, partial(kind, canvas, x, z, steel)))
        shadows.upright(x, z, 0.09, 3.0)

    for number in range(int(rng.integers(2, 6))):
        z = float(rng.uniform(4.6, 7.5)) if number < 2 else float(rng.uniform(5.5, 11))
        if rng.random() < 0.75:
            x = kerbside(
                seen(z), float(rng.uniform(0.7, max(0.9, street.wall - street.half - 0.6)))
            )
        else:
            x = float(rng.uniform(left + 0.5, right - 0.5))
        reach = canvas.edge(z) * 0.85
        x = min(max(x, -reach), reach)
        height = float(rng.uniform(1.5, 1.92))
        stride = float(rng.uniform(0.03, 0.2))
        things.append((z, partial(_person, canvas, x, z, height, stride)))
        shadows.upright(x, z, 0.2, height)

    lanes = [street.shift - street.half * 0.5, street.shift + street.half * 0.5]
    keeps_left = rng.random() < 0.4
    spots = [(float(rng.uniform(5.5, 14)), int(rng.integers(4)))]
    spots += [(float(rng.uniform(6, 36)), int(rng.integers(4))) for _ in range(rng.integers(1, 5))]
    taken: list[tuple[float, float]] = []
    for z, spot in spots:
        parked = spot >= 2
        x = (left + 1.05, right - 1.05)[spot - 2] if parked else lanes[spot]
        if any(abs(x - other) < 2.2 and abs(z - depth) < 5.4 for other, depth in taken):
            continue
        taken.append((x, z))
        rear = (spot % 2 == 0) == keeps_left
        paint, van = canvas.pick(PAINTS), bool(rng.random() < 0.16)
        things.append((z, partial(_car, canvas, x, z, paint, rear=rear, van=van)))
        lean = (-canvas.light.sun * 0.9, 0.0)
        shadows.area((x - 1.0, x + 1.0), (z - 0.25, z + 4.3), strength=150)
        if canvas.light.sun:
            shadows.area((x - 0.9 + lean[0], x + 0.9 + lean[0]), (z, z + 4.2))
    if street.crossing is not None and rng.random() < 0.75:
        z = street.crossing + street.across * 0.5
        x = street.shift + float(rng.uniform(-1.1, 1.1)) * street.wall
        heading = -1 if rng.random() < 0.5 else 1
        things.append((z, partial(_car_across, canvas, x, z, canvas.pick(PAINTS), heading)))
        shadows.area((x - 2.2, x + 2.2), (z - 0.3, z + 1.7), strength=150)
    return things


def _houses(canvas: _Canvas, street: _Street, shadows: _Shadows) -> list[Thing]:
    rng = canvas.rng
    things: list[Thing] = []
    for side in (-1, 1):
        wall = street.shift + side * street.wall
        z = float(rng.uniform(-4, 4))
        tall = float(rng.uniform(5.5, 11))
        while z < FAR:
            length = float(rng.uniform(7, 16))
            meets = street.crossing is not None and (
                z < street.crossing + street.across + 2 and z + length > street.crossing - 2
            )
            if meets and street.crossing is not None:
                length = street.crossing - 2 - z
            if length > 3 and z + length > NEAR + 1:
                height = max(4.5, tall + float(rng.normal(0, 2.2)))
                ends = (z, z + length)
                # Its far end is its depth: what stands before its front is drawn after it.
                things.append((z + length, partial(_house, canvas, side, wall, ends, height)))
                if canvas.light.sun == side:
                    reach = sorted((wall, wall - side * height * 0.55))
                    shadows.area((reach[0], reach[1]), ends)
            z += max(length, 0.5)
            if meets and street.crossing is not None:
                z = street.crossing + street.across + 2
            elif rng.random() < 0.22:
                z += float(rng.uniform(2, 7))
    return things


def _bonnet(canvas: _Canvas) -> None:
    """The rim of the car that carries the camera: void, as in driving data sets."""
    paint = canvas.pick(PAINTS)
    middle, unit = canvas.columns * float(canvas.rng.uniform(0.45, 0.55)), canvas.unit
    rise = float(canvas.rng.uniform(6, 11))
    for inset, gain in ((0.0, 0.35), (1.2, 0.62), (4.0, 0.8)):
        reach = canvas.columns * 0.56 - inset * 2
        points = [
            (
                (middle + math.cos(t) * reach) * unit,
                (ROWS - math.sin(t) * rise + inset) * unit,
            )
            for t in np.linspace(0.0, math.pi, 24).tolist()
        ]
        points = [(points[0][0], ROWS * unit * 1.1), *points, (points[-1][0], ROWS * unit * 1.1)]
        canvas.polygon(points, canvas.tint(paint, 0.0, gain), VOID)


def _smudge(canvas: _Canvas) -> None:
    """A drop on the lens: blurred in the picture, void in the mask."""
    rng, unit = canvas.rng, canvas.unit
    x, y = float(rng.uniform(8, max(9.0, canvas.columns - 8))), float(rng.uniform(20, ROWS - 20))
    across, down = float(rng.uniform(4, 8)), float(rng.uniform(3.5, 6))
    bounds = ((x - across) * unit, (y - down) * unit, (x + across) * unit, (y + down) * unit)
    ImageDraw.Draw(canvas.mask).ellipse(bounds, fill=VOID)
    margin = 4 * unit
    area = (
        max(0, int(bounds[0] - margin)),
        max(0, int(bounds[1] - margin)),
        min(canvas.size[0], int(bounds[2] + margin)),
        min(canvas.size[1], int(bounds[3] + margin)),
    )
    if area[2] <= area[0] or area[3] <= area[1]:
        return
    shape = Image.new("L", (area[2] - area[0], area[3] - area[1]), 0)
    local = [bounds[0] - area[0], bounds[1] - area[1], bounds[2] - area[0], bounds[3] - area[1]]
    ImageDraw.Draw(shape).ellipse(local, fill=255)
    blurred = canvas.image.crop(area).filter(ImageFilter.BoxBlur(3 * unit))
    canvas.image.paste(blurred, area[:2], mask=shape.filter(ImageFilter.BoxBlur(unit)))


def _smooth_noise(
    rng: np.random.Generator, height: int, width: int, *, cells: float
) -> NDArray[np.float32]:
    """(height, width) noise of deviation about 1, with about `cells` blobs from top to bottom."""
    rows = max(2, round(cells))
    columns = max(2, round(cells * width / max(height, 1)))
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    field = Image.fromarray(coarse).resize(
        (max(width, 1), max(height, 1)), Image.Resampling.BICUBIC
    )
    return np.asarray(field, dtype=np.float32) * 1.3


# How strongly noise shows on each class: fine grain, and blotches some pixels wide.
_GRAIN = np.full(256, 0.02, dtype=np.float32)
_GRAIN[[ROAD, PAVEMENT, VEGETATION, BUILDING]] = (0.055, 0.04, 0.09, 0.02)
_GRAIN[SKY] = 0.004
_BLOTCH = np.full(256, 0.02, dtype=np.float32)
_BLOTCH[[ROAD, PAVEMENT, VEGETATION, BUILDING]] = (0.03, 0.03, 0.09, 0.018)
_BLOTCH[SKY] = 0.008


def _photograph(canvas: _Canvas, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at its final size with texture, blur, colour cast, exposure and noise."""
    rng = canvas.rng
    height, width = mask.shape
    small = canvas.image.reduce(OVERSAMPLING)
    small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.55)) * height / ROWS))
    pixels = np.asarray(small, dtype=np.float32)
    texture = 1.0 + _GRAIN[mask] * rng.standard_normal((height, width), dtype=np.float32)
    texture += _BLOTCH[mask] * _smooth_noise(rng, height, width, cells=34.0)
    down = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    across = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    texture *= 1.0 - float(rng.uniform(0.0, 0.09)) * (down**2 + across**2)  # vignette
    texture *= float(rng.uniform(0.86, 1.14))
    cast = rng.normal(1.0, 0.035, 3).astype(np.float32)
    pixels = pixels * texture[..., None] * cast
    grain = float(rng.uniform(1.0, 4.5))
    pixels += grain * rng.standard_normal(pixels.shape, dtype=np.float32)
    contrast = float(rng.uniform(0.9, 1.1))
    pixels = (pixels - 118.0) * contrast + 118.0
    photograph: NDArray[np.uint8] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return photograph


def generate_scene(
    seed: int, *, height: int = 144, width: int = 192
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one street scene: an image (height, width, 3), RGB, and its mask (height, width).

    The mask holds the file values of SCENE_CLASSES, and its ignore value on a few void pixels (the
    camera car's bonnet, a drop on the lens). The same seed and size give the same scene.

    Raises InputError for a negative seed, or a size below 16.
    """
    if height < MIN_SIZE or width < MIN_SIZE:
        raise InputError(f"scene of {height} x {width} pixels: allowed are {MIN_SIZE} and more")
    if seed < 0:
        raise InputError(f"seed {seed}: allowed are 0 and more")
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng, _light(rng), height, width)
    half = float(rng.uniform(3.0, 4.6))
    street = _Street(
        half=half,
        wall=half + float(rng.uniform(2.2, 5.0)),
        shift=float(rng.uniform(-1.2, 1.2)),
        crossing=float(rng.uniform(14, 26)) if rng.random() < 0.35 else None,
        across=float(rng.uniform(5.5, 7.5)),
    )
    shadows = _Shadows(canvas)
    things = _houses(canvas, street, shadows) + _things(canvas, street, shadows)
    _sky(canvas)
    _backdrop(canvas)
    _ground(canvas, street)
    shadows.lay()
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    if rng.random() < 0.2:
        _smudge(canvas)
    if rng.random() < 0.35:
        _bonnet(canvas)
    middle = OVERSAMPLING // 2
    mask = np.asarray(canvas.mask)[middle::OVERSAMPLING, middle::OVERSAMPLING].copy()
    return _photograph(canvas, mask), mask


def write_scenes(
    folder: Path,
    *,
    train: int,
    val: int,
    test: int = 0,
    seed: int = 0,
    height: int = 144,
    width: int = 192,
) -> Path:
    """Write a data set of generated scenes and return its folder.

    `images/{train,val,test}/scene_0000.png` are RGB, `masks/{train,val,test}/scene_0000.png`
    palette PNG, and `classes.toml` says what the masks hold. A scene depends on `seed`, its split
    and its number only: more training scenes leave those of validation as they are.

    Raises InputError for a negative count or seed, for a size below 16, and where `folder` has
    other pictures in it already, which would be mixed with these.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    for split, count in counts.items():
        if count < 0:
            raise InputError(f"{count} scenes for {split}: allowed are 0 and more")
    if seed < 0:
        raise InputError(f"seed {seed}: allowed are 0 and more")
    names = {
        Path(part, split, f"scene_{number:04d}.png")
        for part in ("images", "masks")
        for split, count in counts.items()
        for number in range(count)
    }
    for part in ("images", "masks"):
        for present in sorted((folder / part).rglob("*")):
            if present.is_file() and present.relative_to(folder) not in names:
                raise InputError(f"{present}: is there already: give an empty or a new folder")
    palette = SCENE_CLASSES.palette()
    for place, (split, count) in enumerate(counts.items()):
        if count == 0:
            continue
        images, masks = folder / "images" / split, folder / "masks" / split
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            scene_seed = (seed * 1_000_003 + number) * len(SPLITS) + place
            image, mask = generate_scene(scene_seed, height=height, width=width)
            name = f"scene_{number:04d}.png"
            Image.fromarray(image).save(images / name, compress_level=3)
            indexed = Image.fromarray(mask)
            indexed.putpalette(palette)
            indexed.save(masks / name)
    folder.mkdir(parents=True, exist_ok=True)
    write_classes_toml(folder / "classes.toml", SCENE_CLASSES)
    return folder
