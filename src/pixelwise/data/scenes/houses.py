"""Houses along both sides of the street."""

from __future__ import annotations

import math
from functools import partial

from pixelwise.data.classes import Color
from pixelwise.data.scenes.canvas import Canvas, Point, Point3D, Shadows, to_color
from pixelwise.data.scenes.scene_classes import BUILDING, FAR, NEAR, SIGNS, WALLS
from pixelwise.data.scenes.street import Drawable, Street


def place_houses(canvas: Canvas, street: Street, shadows: Shadows) -> list[Drawable]:
    """Place two rows of houses with random gaps, and a gap for a crossing street."""
    rng = canvas.rng
    objects: list[Drawable] = []
    gap_near, gap_far = street.house_gap
    for side in (-1, 1):
        wall = street.center + side * street.house_offset
        z = float(rng.uniform(-4, 4))
        tall = float(rng.uniform(5.5, 11))
        while z < FAR:
            length = float(rng.uniform(7, 16))
            meets_gap = z < gap_far and z + length > gap_near
            if meets_gap:
                length = gap_near - z
            if length > 3 and z + length > NEAR + 1:
                height = max(4.5, tall + float(rng.normal(0, 2.2)))
                ends = (z, z + length)
                # The far end is its depth, so that objects in front of it are drawn later.
                objects.append((z + length, partial(_draw_house, canvas, side, wall, ends, height)))
                if canvas.light.sun == side:
                    left, right = sorted((wall, wall - side * height * 0.55))
                    shadows.area((left, right), ends)
            if meets_gap:
                z = gap_far
            else:
                z += length
                if rng.random() < 0.22:
                    z += float(rng.uniform(2, 7))
    return objects


def _draw_house(canvas: Canvas, side: int, wall: float, z: Point, top: float) -> None:
    _House(canvas, side, wall, z, top).draw()


class _House:
    """A house beside the street: the front along it, and the gable towards the camera.

    Attributes:
        side: -1 left of the street, 1 right.
        wall: x of the front.
        near: Depth of the near end of the front.
        far: Depth of the far end.
        top: Height of the front.
        front_gain: Brightness of the front.
        pane: Color of dark windows.
    """

    def __init__(self, canvas: Canvas, side: int, wall: float, z: Point, top: float) -> None:
        rng, light = canvas.rng, canvas.light
        self.canvas, self.side, self.wall, self.top = canvas, side, wall, top
        self.near, self.far = max(z[0], NEAR), z[1]
        self.paint = canvas.choose(WALLS)
        self.front_gain = {0: 0.95, side: 0.66, -side: 1.12}[light.sun]
        self.pane: Color = (58, 68, 82)
        if light.lit_windows < 0.3:  # by day, windows reflect the sky
            mixed = zip(self.pane, light.sky_top, strict=True)
            self.pane = to_color((2 * a + b) // 3 for a, b in mixed)
        self.floor_height = float(rng.uniform(2.8, 3.4))
        self.bay = float(rng.uniform(2.0, 3.2))
        self.opening = self.bay * float(rng.uniform(0.4, 0.6))
        self.shop = rng.random() < 0.4
        self.roof = canvas.choose([(110, 66, 54), (84, 80, 82), (72, 62, 58)])
        self.pitched = rng.random() < 0.45
        self.outer = wall + side * (8.0 if self.pitched else 14.0)

    def front(self, a: float, b: float, low: float, high: float) -> list[Point3D]:
        """A rectangle on the front, from depth a to depth b."""
        wall = self.wall
        return [(wall, low, a), (wall, low, b), (wall, high, b), (wall, high, a)]

    def glass(self) -> tuple[Color, float]:
        """Color and brightness of a window; some have a light inside."""
        rng, light = self.canvas.rng, self.canvas.light
        if rng.random() < light.lit_windows:
            return (250, 214, 140), 1.0 / light.gain[0]
        return self.pane, float(rng.uniform(0.75, 1.2))

    def draw(self) -> None:
        canvas, near = self.canvas, self.near
        self._draw_walls()
        self._draw_front_windows()
        if self.shop:
            awning = canvas.shade(canvas.choose(SIGNS), near, self.front_gain * 0.85)
            canvas.polygon(self.front(near, self.far - 0.2, 2.6, 3.2), awning)
        if near > 6 and canvas.meters(1.2, near) < 1.0:
            self._draw_gable_windows()

    def _draw_walls(self) -> None:
        canvas, wall, top, near, far = self.canvas, self.wall, self.top, self.near, self.far
        paint, gain, outer = self.paint, self.front_gain, self.outer
        gable = canvas.shade(paint, near, 0.82)
        if self.pitched:
            mid, ridge = wall + self.side * 4.0, top + 2.4
            canvas.facing_polygon([(wall, top), (mid, ridge), (outer, top)], near, gable, BUILDING)
            slope = [(wall, top, near), (wall, top, far), (mid, ridge, far), (mid, ridge, near)]
            canvas.polygon(slope, canvas.shade(self.roof, near, gain), BUILDING)
        canvas.box((wall, outer), (-0.3, top), near, gable, BUILDING)
        plaster = canvas.shade(paint, (near + far) / 2, gain)
        canvas.polygon(self.front(near, far, -0.1, top), plaster, BUILDING)
        if not self.pitched:
            trim = canvas.shade(paint, near, gain * 1.2)
            canvas.polygon(self.front(near, far, top - 0.5, top), trim)
        canvas.polygon(self.front(near, far, 0.0, 0.6), canvas.shade(paint, near, gain * 0.7))

    def _draw_front_windows(self) -> None:
        canvas, near, bay, opening = self.canvas, self.near, self.bay, self.opening
        # Bays that are too near to be in the image are skipped. Do not reorder these terms: the
        # rounding sometimes skips one more bay, and scenes must not change.
        first = max(near + 0.6, abs(self.wall) * canvas.focal / max(canvas.columns, 1.0) * 0.8)
        depth = near + 0.6 + math.ceil((first - near - 0.6) / bay) * bay
        frame = canvas.shade(self.paint, near, self.front_gain * 1.22)
        while depth + opening < self.far - 0.3:
            # Stop at windows that are narrower than half a row.
            if canvas.focal / depth * opening * abs(self.wall) / depth < 0.5:
                break
            y = 0.9
            if self.shop:
                color, gain = self.glass()
                window = self.front(depth - 0.3, depth + opening + 0.4, 0.5, 2.5)
                canvas.polygon(window, canvas.shade(color, depth, gain))
                y += self.floor_height
            while y + 1.6 < min(self.top, canvas.visible_height(depth)):
                color, gain = self.glass()
                if depth < 20:
                    ends = depth - 0.12, depth + opening + 0.12
                    canvas.polygon(self.front(*ends, y - 0.2, y + 1.7), frame)
                window = self.front(depth, depth + opening, y, y + 1.55)
                canvas.polygon(window, canvas.shade(color, depth, gain))
                y += self.floor_height
            depth += bay

    def _draw_gable_windows(self) -> None:
        canvas, near, wall, opening = self.canvas, self.near, self.wall, self.opening
        x, width = 1.2, abs(self.outer - wall)
        while x + opening < width - 0.6 and abs(wall) + x < canvas.extent(near) * 1.1:
            ends = (wall + self.side * x, wall + self.side * (x + opening))
            y = 0.9
            while y + 1.6 < min(self.top, canvas.visible_height(near)):
                color, gain = self.glass()
                canvas.box(ends, (y, y + 1.5), near, canvas.shade(color, near, gain * 0.9))
                y += self.floor_height
            x += self.bay
