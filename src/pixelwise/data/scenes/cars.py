"""Cars: parked at the curb, in the lanes, and on the crossing street."""

from __future__ import annotations

import math
from functools import partial

from pixelwise.data.classes import Color
from pixelwise.data.scenes.canvas import Canvas, Point, Point3D, Shadows
from pixelwise.data.scenes.scene_classes import CAR, PAINTS
from pixelwise.data.scenes.street import Drawable, Street

UNDERNEATH = 150  # opacity of the shadow under a car in any light, 0..255


def place_cars(canvas: Canvas, street: Street, shadows: Shadows) -> list[Drawable]:
    """Place up to five cars along the street, and one on the crossing street."""
    rng, sun = canvas.rng, canvas.light.sun
    objects: list[Drawable] = []
    left, right = street.curbs
    lane = street.half_width * 0.5
    columns = (street.center - lane, street.center + lane, left + 1.05, right - 1.05)
    keeps_left = rng.random() < 0.4
    spots = [(float(rng.uniform(5.5, 14)), int(rng.integers(4)))]
    spots += [(float(rng.uniform(6, 36)), int(rng.integers(4))) for _ in range(rng.integers(1, 5))]
    taken: list[Point] = []
    for z, column in spots:
        x = columns[column]
        if any(abs(x - other) < 2.2 and abs(z - depth) < 5.4 for other, depth in taken):
            continue
        taken.append((x, z))
        rear = (column % 2 == 0) == keeps_left
        paint, van = canvas.choose(PAINTS), bool(rng.random() < 0.16)
        objects.append((z, partial(_draw_car, canvas, x, z, paint, rear=rear, van=van)))
        shadows.area((x - 1.0, x + 1.0), (z - 0.25, z + 4.3), UNDERNEATH)
        if sun:
            shadows.area((x - 0.9 - sun * 0.9, x + 0.9 - sun * 0.9), (z, z + 4.2))
    if street.crossing is not None and rng.random() < 0.75:
        z = street.crossing + street.crossing_width * 0.5
        x = street.center + float(rng.uniform(-1.1, 1.1)) * street.house_offset
        heading = -1 if rng.random() < 0.5 else 1
        objects.append((z, partial(_draw_car_across, canvas, x, z, canvas.choose(PAINTS), heading)))
        shadows.area((x - 2.2, x + 2.2), (z - 0.3, z + 1.7), UNDERNEATH)
    return objects


def _draw_car(canvas: Canvas, x: float, z: float, paint: Color, *, rear: bool, van: bool) -> None:
    """Draw a car along the street, seen from behind (`rear`) or from the front."""
    light = canvas.light
    half, ahead = 0.88, z + 4.1
    belt, roof = (1.05, 2.05) if van else (0.86, 1.44)
    inward = -1 if x > 0 else 1  # the side that faces the camera
    flank = x + inward * half
    side_gain = 0.86 if light.sun == 0 else 1.1 if light.sun == inward else 0.66
    dark, glass = canvas.shade((26, 26, 28), z), (48, 58, 70)
    side_paint = canvas.shade(paint, z, side_gain)

    def strip(low: float, high: float) -> list[Point3D]:
        """A rectangle on the flank."""
        return [(flank, low, z), (flank, low, ahead), (flank, high, ahead), (flank, high, z)]

    canvas.box((x - half, x + half), (0.12, 0.4), z, dark, CAR)
    canvas.polygon(strip(0.12, 0.4), dark, CAR)
    for left in (x - half, x + half - 0.24):
        canvas.box((left, left + 0.24), (0.0, 0.4), z, dark, CAR)
    canvas.polygon(strip(0.3, belt), side_paint, CAR)
    angles = [2 * math.pi * i / 12 for i in range(12)]
    for axle in (z + 0.75, z + 3.25):
        for radius, color in ((0.34, dark), (0.17, canvas.shade((150, 150, 152), z, side_gain))):
            rim = [
                (flank, 0.34 + radius * math.sin(t), axle + radius * math.cos(t)) for t in angles
            ]
            canvas.polygon(rim, color, CAR)
    canvas.ground((x - half, x + half), (z, ahead), canvas.shade(paint, z, 1.12), CAR, lift=belt)

    # The cabin is narrower at the top. The windows are slightly smaller than its faces.
    wide, slim = half - 0.05, half - (0.1 if van else 0.2)
    if van:
        low0, low1, high0, high1 = z + 0.15, z + 3.6, z + 0.25, z + 3.2
    else:
        low0, low1 = (z + 0.25, z + 3.1) if rear else (z + 0.9, z + 3.9)
        high0, high1 = low0 + 0.45, low1 - 0.6
    foot, head = x + inward * wide, x + inward * slim
    side = [(foot, belt, low0), (foot, belt, low1), (head, roof, high1), (head, roof, high0)]
    canvas.polygon(side, side_paint, CAR)
    panes = [(foot, belt + 0.06, low0 + 0.3), (foot, belt + 0.06, low1 - 0.3)]
    panes += [(head, roof - 0.1, high1 - 0.1), (head, roof - 0.1, high0 + 0.15)]
    canvas.polygon(panes, canvas.shade(glass, z, side_gain))
    back = [(x - slim, roof, high0), (x + slim, roof, high0)]
    if canvas.camera_height > roof:
        top = [*back, (x + slim, roof, high1), (x - slim, roof, high1)]
        canvas.polygon(top, canvas.shade(paint, z, 1.18), CAR)
    face = [(x + slim, roof, high0), (x - slim, roof, high0)]
    face += [(x - wide, belt, low0), (x + wide, belt, low0)]
    canvas.polygon(face, canvas.shade(paint, z, 0.95), CAR)
    inner = [(x - wide + 0.1, belt + 0.05, low0), (x + wide - 0.1, belt + 0.05, low0)]
    inner += [(x + slim - 0.08, roof - 0.09, high0), (x - slim + 0.08, roof - 0.09, high0)]
    canvas.polygon(inner, canvas.shade(glass, z))

    canvas.box((x - half, x + half), (0.3, belt), z, canvas.shade(paint, z, 0.92), CAR)
    canvas.box((x - half, x + half), (0.3, 0.44), z, canvas.shade(paint, z, 0.55))
    canvas.box((x - 0.26, x + 0.26), (0.42, 0.55), z, canvas.shade((226, 224, 206), z))
    lamp: Color = (196, 36, 34) if rear else (250, 244, 214)
    glow = 1.0 / max(light.gain) if light.lit_windows > 0.3 else 0.95
    for left in (x - half + 0.05, x + half - 0.35):
        canvas.box((left, left + 0.3), (belt - 0.3, belt - 0.12), z, canvas.shade(lamp, z, glow))


def _draw_car_across(canvas: Canvas, x: float, z: float, paint: Color, heading: int) -> None:
    """Draw a car on the crossing street, seen from its side. `heading` is 1 to the right."""
    dark, rim = canvas.shade((26, 26, 28), z), canvas.shade((156, 156, 158), z)
    canvas.box((x - 2.0, x + 2.0), (0.18, 0.4), z, dark, CAR)

    def oriented(points: list[Point]) -> list[Point]:
        return [(x + heading * a, b) for a, b in points]

    body = [(-2.1, 0.32), (2.1, 0.32), (2.12, 0.66), (1.2, 0.88), (-2.0, 0.92), (-2.12, 0.6)]
    canvas.facing_polygon(oriented(body), z, canvas.shade(paint, z, 0.95), CAR)
    cabin = [(-1.75, 0.9), (1.15, 0.86), (0.45, 1.42), (-1.1, 1.42)]
    canvas.facing_polygon(oriented(cabin), z, canvas.shade(paint, z, 1.1), CAR)
    for pane in (
        [(-1.45, 0.93), (-0.4, 0.93), (-0.4, 1.34), (-1.02, 1.34)],
        [(-0.3, 0.93), (0.88, 0.9), (0.38, 1.34), (-0.3, 1.34)],
    ):
        canvas.facing_polygon(oriented(pane), z, canvas.shade((54, 66, 80), z))
    canvas.box((x - 2.08, x + 2.08), (0.32, 0.42), z, canvas.shade(paint, z, 0.6))
    for wheel in (-1.3, 1.3):
        canvas.disc((x + wheel, 0.33, z), 0.34, dark, CAR)
        canvas.disc((x + wheel, 0.33, z), 0.18, rim)
