"""What the class "pole" holds: lamps, signs and traffic lights, each on its post."""

from __future__ import annotations

import math
from functools import partial

from pixelwise.data.classes import Color
from pixelwise.data.scenes.canvas import Canvas, Shadows
from pixelwise.data.scenes.scene_classes import POLE, SIGNS, THIN
from pixelwise.data.scenes.street import Street, Thing


def place_posts(canvas: Canvas, street: Street, shadows: Shadows, steel: Color) -> list[Thing]:
    """Three to five posts near the kerbs, signs most often."""
    rng = canvas.rng
    things: list[Thing] = []
    kinds = (_draw_lamp, _draw_sign, _draw_sign, _draw_traffic_light)
    for number in range(int(rng.integers(3, 6))):
        # The first two stand near, so that no scene is without a pole that can be learned from.
        z = float(rng.uniform(6, 10)) if number < 2 else float(rng.uniform(8, 17))
        x = street.pavement(street.side_in_view(canvas, z), float(rng.uniform(0.35, 0.7)))
        draw = kinds[int(rng.integers(len(kinds)))]
        things.append((z, partial(draw, canvas, x, z, steel)))
        shadows.upright(x, z, 0.09, 3.0)
    return things


def _draw_post(canvas: Canvas, x: float, z: float, top: float, steel: Color) -> float:
    """An upright post; returns half of its width in meters."""
    half = max(0.055, canvas.meters(THIN, z) / 2)
    canvas.box((x - half, x + half), (0, top), z, canvas.tint(steel, z), POLE)
    shaded = (x, x + half) if canvas.light.sun < 0 else (x - half, x)
    canvas.box(shaded, (0, top), z, canvas.tint(steel, z, 0.72))
    return half


def _draw_lamp(canvas: Canvas, x: float, z: float, steel: Color) -> None:
    top = float(canvas.rng.uniform(4.6, 6.2))
    half = _draw_post(canvas, x, z, top, steel)
    inward = -1 if x > 0 else 1
    canvas.box((x, x + inward * 1.3), (top - half * 2, top), z, canvas.tint(steel, z), POLE)
    ends = (x + inward * 0.7, x + inward * 1.5)
    low = top - half * 2 - 0.12
    canvas.box(ends, (low, top), z, canvas.tint(steel, z, 0.8), POLE)
    glow = 1.0 / canvas.light.gain[0] if canvas.light.lit > 0.3 else 0.9
    canvas.box(ends, (low, low + 0.12), z, canvas.tint((255, 236, 180), z, glow), POLE)


def _draw_sign(canvas: Canvas, x: float, z: float, steel: Color) -> None:
    """A disc, a triangle or a board."""
    rng = canvas.rng
    top = float(rng.uniform(2.3, 2.9))
    _draw_post(canvas, x, z, top, steel)
    size = max(0.4, canvas.meters(5.0, z))
    color = canvas.tint(canvas.pick(SIGNS, 8), z)
    inside = canvas.tint((236, 234, 228), z)
    kind = int(rng.integers(3))
    if kind == 0:
        canvas.disc((x, top, z), size, color, POLE)
        canvas.disc((x, top, z), size * 0.62, inside)
    elif kind == 1:
        turn = [math.pi / 2 + i * 2 * math.pi / 3 for i in range(3)]
        for grow, paint in ((1.15, color), (0.6, inside)):
            reach = size * grow
            corners = [(x + math.cos(t) * reach, top + math.sin(t) * reach) for t in turn]
            canvas.upright(corners, z, paint, POLE)
    else:
        canvas.box((x - size, x + size), (top - size, top + size * 0.8), z, color, POLE)
        across, up = (x - size * 0.6, x + size * 0.6), (top - size * 0.2, top + size * 0.1)
        canvas.box(across, up, z, inside)


def _draw_traffic_light(canvas: Canvas, x: float, z: float, steel: Color) -> None:
    top = float(canvas.rng.uniform(2.7, 3.3))
    _draw_post(canvas, x, z, top, steel)
    half = max(0.22, canvas.meters(3.2, z))
    case = canvas.tint((34, 36, 38), z)
    canvas.box((x - half, x + half), (top - half * 2, top + half * 3), z, case, POLE)
    on = int(canvas.rng.integers(3))
    for place, color in enumerate(((70, 220, 120), (250, 190, 60), (240, 60, 48))):
        glow = 1.0 / max(canvas.light.gain) if place == on else 0.25
        spot = (x, top + half * (-1.1 + 1.6 * place), z)
        canvas.disc(spot, half * 0.62, canvas.tint(color, 0.0, glow))
