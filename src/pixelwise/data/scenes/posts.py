"""Objects of the class "pole": street lamps, signs and traffic lights, each on its post."""

from __future__ import annotations

import math
from functools import partial

from pixelwise.data.classes import Color
from pixelwise.data.scenes.canvas import Canvas, Shadows
from pixelwise.data.scenes.scene_classes import POLE, SIGNS, THIN
from pixelwise.data.scenes.street import Drawable, Street


def place_posts(canvas: Canvas, street: Street, shadows: Shadows, steel: Color) -> list[Drawable]:
    """Place three to five posts near the curbs; signs are the most frequent."""
    rng = canvas.rng
    objects: list[Drawable] = []
    kinds = (_draw_lamp, _draw_sign, _draw_sign, _draw_traffic_light)
    for number in range(int(rng.integers(3, 6))):
        # The first two are near, so that every scene contains poles of a useful size.
        z = float(rng.uniform(6, 10)) if number < 2 else float(rng.uniform(8, 17))
        x = street.pavement_x(street.visible_side(canvas, z), float(rng.uniform(0.35, 0.7)))
        draw = kinds[int(rng.integers(len(kinds)))]
        objects.append((z, partial(draw, canvas, x, z, steel)))
        shadows.cast(x, z, 0.09, 3.0)
    return objects


def _draw_post(canvas: Canvas, x: float, z: float, top: float, steel: Color) -> float:
    """Draw an upright post; returns half its width in meters."""
    half = max(0.055, canvas.meters(THIN, z) / 2)
    canvas.box((x - half, x + half), (0, top), z, canvas.shade(steel, z), POLE)
    shaded = (x, x + half) if canvas.light.sun < 0 else (x - half, x)
    canvas.box(shaded, (0, top), z, canvas.shade(steel, z, 0.72))
    return half


def _draw_lamp(canvas: Canvas, x: float, z: float, steel: Color) -> None:
    top = float(canvas.rng.uniform(4.6, 6.2))
    half = _draw_post(canvas, x, z, top, steel)
    inward = -1 if x > 0 else 1
    canvas.box((x, x + inward * 1.3), (top - half * 2, top), z, canvas.shade(steel, z), POLE)
    ends = (x + inward * 0.7, x + inward * 1.5)
    low = top - half * 2 - 0.12
    canvas.box(ends, (low, top), z, canvas.shade(steel, z, 0.8), POLE)
    glow = 1.0 / canvas.light.gain[0] if canvas.light.lit_windows > 0.3 else 0.9
    canvas.box(ends, (low, low + 0.12), z, canvas.shade((255, 236, 180), z, glow), POLE)


def _draw_sign(canvas: Canvas, x: float, z: float, steel: Color) -> None:
    """Draw a round, triangular or rectangular sign."""
    rng = canvas.rng
    top = float(rng.uniform(2.3, 2.9))
    _draw_post(canvas, x, z, top, steel)
    size = max(0.4, canvas.meters(5.0, z))
    color = canvas.shade(canvas.choose(SIGNS, 8), z)
    inside = canvas.shade((236, 234, 228), z)
    kind = int(rng.integers(3))
    if kind == 0:
        canvas.disc((x, top, z), size, color, POLE)
        canvas.disc((x, top, z), size * 0.62, inside)
    elif kind == 1:
        angles = [math.pi / 2 + i * 2 * math.pi / 3 for i in range(3)]
        for scale, paint in ((1.15, color), (0.6, inside)):
            radius = size * scale
            corners = [(x + math.cos(t) * radius, top + math.sin(t) * radius) for t in angles]
            canvas.facing_polygon(corners, z, paint, POLE)
    else:
        canvas.box((x - size, x + size), (top - size, top + size * 0.8), z, color, POLE)
        across, up = (x - size * 0.6, x + size * 0.6), (top - size * 0.2, top + size * 0.1)
        canvas.box(across, up, z, inside)


def _draw_traffic_light(canvas: Canvas, x: float, z: float, steel: Color) -> None:
    top = float(canvas.rng.uniform(2.7, 3.3))
    _draw_post(canvas, x, z, top, steel)
    half = max(0.22, canvas.meters(3.2, z))
    case = canvas.shade((34, 36, 38), z)
    canvas.box((x - half, x + half), (top - half * 2, top + half * 3), z, case, POLE)
    on = int(canvas.rng.integers(3))
    for index, color in enumerate(((70, 220, 120), (250, 190, 60), (240, 60, 48))):
        glow = 1.0 / max(canvas.light.gain) if index == on else 0.25
        center = (x, top + half * (-1.1 + 1.6 * index), z)
        canvas.disc(center, half * 0.62, canvas.shade(color, 0.0, glow))
