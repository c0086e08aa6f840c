"""Trees and hedges along the street."""

from __future__ import annotations

import math
from functools import partial

from pixelwise.data.classes import Color
from pixelwise.data.scenes.canvas import Canvas, Point, Point3D, Shadows
from pixelwise.data.scenes.scene_classes import LEAVES, THIN, VEGETATION
from pixelwise.data.scenes.street import Drawable, Street


def place_greenery(canvas: Canvas, street: Street, shadows: Shadows) -> list[Drawable]:
    """Place two to five trees of one kind behind the curbs, and sometimes a hedge."""
    rng = canvas.rng
    objects: list[Drawable] = []
    leaf = canvas.choose(LEAVES)
    for _ in range(int(rng.integers(2, 6))):
        z, height = float(rng.uniform(9, 42)), float(rng.uniform(4.2, 7.0))
        x = street.pavement_x(street.visible_side(canvas, z), float(rng.uniform(0.8, 1.4)))
        objects.append((z, partial(_draw_tree, canvas, x, z, height, leaf)))
        shadows.cast(x, z, 0.2, height * 0.7, height * 0.28)
    if rng.random() < 0.55:
        side, z = street.visible_side(canvas, 9.0), float(rng.uniform(8, 20))
        x = street.center + side * (street.house_offset - 0.7)
        length = float(rng.uniform(3, 9))
        objects.append((z, partial(_draw_hedge, canvas, x, z, length, canvas.choose(LEAVES))))
    return objects


def _draw_tree(canvas: Canvas, x: float, z: float, height: float, leaf: Color) -> None:
    trunk = max(0.14, canvas.meters(THIN, z) / 2)
    bark = canvas.choose([(92, 70, 54), (112, 92, 74), (74, 62, 54)], 8)
    radius = height * float(canvas.rng.uniform(0.26, 0.34))
    middle = height - radius
    canvas.box((x - trunk, x + trunk), (0, middle), z, canvas.shade(bark, z), VEGETATION)
    shaded = (x - trunk, x) if canvas.light.sun > 0 else (x, x + trunk)
    canvas.box(shaded, (0, middle), z, canvas.shade(bark, z, 0.7))
    _draw_leaves(canvas, (x, middle, z), (radius, radius * 0.95), leaf, clumps=9)


def _draw_hedge(canvas: Canvas, x: float, z: float, length: float, leaf: Color) -> None:
    steps = max(2, round(length / 0.9))
    for step in range(steps, -1, -1):
        center = (x, 0.55, z + length * step / steps)
        _draw_leaves(canvas, center, (0.6, 0.55), leaf, clumps=3)


def _draw_leaves(canvas: Canvas, center: Point3D, radii: Point, leaf: Color, clumps: int) -> None:
    """Draw a crown: dark clumps first, then lighter ones towards the light."""
    rng, (x, y, z) = canvas.rng, center
    size = min(radii)
    for _ in range(clumps):
        angle, far = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.1, 0.62))
        spot = (x + math.cos(angle) * radii[0] * far, y + math.sin(angle) * radii[1] * far, z)
        ball = size * float(rng.uniform(0.42, 0.62))
        canvas.disc(spot, ball, canvas.shade(leaf, z, float(rng.uniform(0.5, 0.72))), VEGETATION)
    for _ in range(clumps * 4):
        angle, far = float(rng.uniform(0, 2 * math.pi)), math.sqrt(float(rng.random())) * 0.85
        right, up = math.cos(angle) * far, math.sin(angle) * far
        gain = 0.85 + 0.25 * up + 0.15 * right * canvas.light.sun + float(rng.normal(0, 0.12))
        spot = (x + right * radii[0], y + up * radii[1], z)
        ball = size * float(rng.uniform(0.09, 0.2))
        canvas.disc(spot, ball, canvas.shade(leaf, z, max(0.4, gain)), VEGETATION)
