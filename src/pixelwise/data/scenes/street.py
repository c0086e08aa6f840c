"""The layout of the street, and its background: sky, distant houses and ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pixelwise.data.classes import Color
from pixelwise.data.scenes.canvas import Canvas, smooth_noise, to_color
from pixelwise.data.scenes.scene_classes import (
    BUILDING,
    FAR,
    LEAVES,
    NEAR,
    PAVEMENT,
    ROAD,
    ROWS,
    VEGETATION,
    WALLS,
)

Drawable = tuple[float, Callable[[], None]]
"""An object on the street: its depth, and a function that draws it after all farther objects."""


@dataclass(frozen=True)
class Street:
    """Dimensions of the street, in meters.

    Attributes:
        half_width: From the middle of the road to its curbs.
        house_offset: From the middle of the road to the houses.
        center: x of the middle of the road; the camera is at 0.
        crossing: Depth of a crossing street, if there is one.
        crossing_width: Width of the crossing street.
    """

    half_width: float
    house_offset: float
    center: float
    crossing: float | None
    crossing_width: float

    @property
    def curbs(self) -> tuple[float, float]:
        """x of the left and the right curb."""
        return self.center - self.half_width, self.center + self.half_width

    @property
    def house_gap(self) -> tuple[float, float]:
        """Depths between which there are no houses; infinite if no street crosses."""
        if self.crossing is None:
            return math.inf, math.inf
        return self.crossing - 2, self.crossing + self.crossing_width + 2

    def pavement_x(self, side: int, inset: float) -> float:
        """x of a point on the pavement, `inset` from the curb. `side` is -1 left, 1 right."""
        left, right = self.curbs
        return left - inset if side < 0 else right + inset

    def visible_side(self, canvas: Canvas, z: float) -> int:
        """A side whose curb is in view at depth z, at random if both are."""
        side = -1 if canvas.rng.random() < 0.5 else 1
        return side if abs(self.pavement_x(side, 0.8)) < canvas.extent(z) * 0.9 else -side


def sample_street(rng: np.random.Generator) -> Street:
    """Sample a street; about one in three has a crossing street."""
    half = float(rng.uniform(3.0, 4.6))
    return Street(
        half_width=half,
        house_offset=half + float(rng.uniform(2.2, 5.0)),
        center=float(rng.uniform(-1.2, 1.2)),
        crossing=float(rng.uniform(14, 26)) if rng.random() < 0.35 else None,
        crossing_width=float(rng.uniform(5.5, 7.5)),
    )


def draw_sky(canvas: Canvas) -> None:
    """Draw the sky, paler towards the horizon, with or without clouds."""
    light, rng = canvas.light, canvas.rng
    blend = np.linspace(0.0, 1.0, 64)[:, None] * (ROWS / canvas.horizon)
    blend = np.minimum(blend, 1.0) ** 1.3
    column = np.array(light.sky_top) * (1 - blend) + np.array(light.sky_low) * blend
    strip = Image.fromarray(column.astype(np.uint8)[:, None, :])
    canvas.image.paste(strip.resize(canvas.size, Image.Resampling.BILINEAR))
    if light.clouds > 0.25:
        width, height = canvas.size
        field = smooth_noise(rng, height // 6, width // 6, cells=5.0)
        field += 0.5 * smooth_noise(rng, height // 6, width // 6, cells=12.0)
        field += 0.25 * smooth_noise(rng, height // 6, width // 6, cells=26.0)
        cover = np.clip((field - 1.0 + light.clouds) * 95.0, 0.0, 190.0).astype(np.uint8)
        layer = Image.fromarray(cover).resize(canvas.size, Image.Resampling.BILINEAR)
        canvas.image.paste(to_color(channel * 1.12 for channel in light.sky_low), mask=layer)


def draw_backdrop(canvas: Canvas) -> None:
    """Draw distant houses and treetops, pale with haze."""
    rng = canvas.rng
    z = 260.0
    edge = canvas.extent(z) * 1.1
    x = -edge
    while x < edge:
        width = float(rng.uniform(10, 34))
        top = float(rng.uniform(8, 46))
        color = canvas.shade(canvas.choose(WALLS), z * 0.6)
        canvas.box((x, x + width), (-2, top), z, color, BUILDING)
        x += width
    z = 190.0
    edge = canvas.extent(z) * 1.1
    x = -edge
    while x < edge:
        if rng.random() < 0.35:
            radius = float(rng.uniform(4, 8))
            color = canvas.shade(canvas.choose(LEAVES), z * 0.7)
            canvas.box((x - radius * 0.8, x + radius * 0.8), (-1, 5), z, color, VEGETATION)
            canvas.disc((x, radius * 0.9, z), radius, color, VEGETATION)
        x += 10.0


def draw_ground(canvas: Canvas, street: Street) -> None:
    """Draw pavements and road with curbs, joints, patches and markings."""
    rng = canvas.rng
    asphalt = canvas.choose([(88, 88, 92), (104, 102, 100), (72, 74, 80)], 6)
    slabs = canvas.choose([(158, 154, 148), (146, 138, 128), (128, 128, 130)], 8)
    curb = [channel + 26 for channel in slabs]
    line = canvas.shade((226, 224, 214))
    left, right = street.curbs
    wide = canvas.extent(600.0)
    canvas.ground((-wide, wide), (NEAR, 600.0), canvas.shade(slabs, 12.0), PAVEMENT)
    canvas.ground((-60, 60), (NEAR, 30.0), canvas.shade(slabs))
    # The road, drawn next, covers the joints between slabs.
    joint = canvas.shade(slabs, 0.0, 0.84)
    z = 3.0
    while z < 22:
        canvas.ground((-street.house_offset - 8, street.house_offset + 8), (z, z + 0.05), joint)
        z += 1.5
    canvas.ground((left, right), (NEAR, 600.0), canvas.shade(asphalt, 10.0), ROAD)
    canvas.ground((left, right), (NEAR, 25.0), canvas.shade(asphalt))
    for edge in (left, right):
        canvas.ground((edge - 0.12, edge + 0.12), (NEAR, FAR), canvas.shade(curb), PAVEMENT)
    for _ in range(int(rng.integers(0, 4))):  # repairs and stains
        x, z = float(rng.uniform(left, right - 1.5)), float(rng.uniform(3, 20))
        patch = canvas.shade(asphalt, 0.0, float(rng.uniform(0.8, 1.15)))
        canvas.ground((x, x + float(rng.uniform(0.5, 1.5))), (z, z + 2.5), patch)
    _draw_middle_line(canvas, street, line)
    if rng.random() < 0.5:
        for edge in (left + 0.35, right - 0.45):
            canvas.ground((edge, edge + 0.1), (NEAR, 60.0), line)
    if street.crossing is not None:
        near, far = street.crossing, street.crossing + street.crossing_width
        shade = canvas.shade(asphalt, near)
        canvas.ground((-wide, wide), (near - 0.15, far + 0.15), canvas.shade(curb, near), PAVEMENT)
        canvas.ground((-wide, wide), (near, far), shade, ROAD)
        canvas.ground((left, right), (near - 0.3, far + 0.3), shade, ROAD)
        _draw_zebra(canvas, street, street.crossing - 4.0, line)
    elif rng.random() < 0.3:
        _draw_zebra(canvas, street, float(rng.uniform(5, 12)), line)


def _draw_middle_line(canvas: Canvas, street: Street, line: Color) -> None:
    rng = canvas.rng
    z, step = float(rng.uniform(0, 5)), float(rng.uniform(4.5, 7))
    dash = step if rng.random() < 0.2 else step * 0.5
    while z < 60:
        canvas.ground((street.center - 0.08, street.center + 0.08), (z, z + dash), line)
        z += step


def _draw_zebra(canvas: Canvas, street: Street, z: float, line: Color) -> None:
    left, right = street.curbs
    x = left + 0.4
    while x < right - 0.5:
        canvas.ground((x, x + 0.45), (z, z + 2.8), line)
        x += 0.95
