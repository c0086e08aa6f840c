"""People on the pavements and on the road."""

from __future__ import annotations

from functools import partial

from pixelwise.data.scenes.canvas import Canvas, Shadows
from pixelwise.data.scenes.scene_classes import CLOTHES, PERSON, SKINS, THIN
from pixelwise.data.scenes.street import Drawable, Street


def place_people(canvas: Canvas, street: Street, shadows: Shadows) -> list[Drawable]:
    """Place two to five people in view, three quarters of them on a pavement."""
    rng = canvas.rng
    objects: list[Drawable] = []
    left, right = street.curbs
    for number in range(int(rng.integers(2, 6))):
        # The first two are near, so that every scene contains people of a useful size.
        z = float(rng.uniform(4.2, 6.4)) if number < 2 else float(rng.uniform(5.0, 9))
        if rng.random() < 0.75:
            side = street.visible_side(canvas, z)
            widest = max(0.9, street.house_offset - street.half_width - 0.6)
            x = street.pavement_x(side, float(rng.uniform(0.7, widest)))
        else:
            x = float(rng.uniform(left + 0.5, right - 0.5))
        limit = canvas.extent(z) * 0.85
        x = min(max(x, -limit), limit)
        height = float(rng.uniform(1.5, 1.92))
        stride = float(rng.uniform(0.03, 0.2))
        objects.append((z, partial(_draw_person, canvas, x, z, height, stride)))
        shadows.cast(x, z, 0.2, height)
    return objects


def _draw_person(canvas: Canvas, x: float, z: float, height: float, stride: float) -> None:
    """Draw a walking person; `stride` is the sideways offset of each foot in meters."""
    rng = canvas.rng
    coat, legs = canvas.choose(CLOTHES), canvas.choose(CLOTHES[:5])
    skin = canvas.shade(canvas.choose(SKINS, 5), z)
    shoe = canvas.shade((34, 30, 30), z)
    unit = height / 1.75
    shoulder, hip, neck = 1.42 * unit, 0.84 * unit, 1.5 * unit
    broad = max(0.25 * unit, canvas.meters(THIN, z) / 2)
    limb = max(0.1 * unit, canvas.meters(2.4, z) / 2)
    for move, gain in ((-stride, 0.8), (stride, 1.0)):
        foot = x + move
        leg = [(x - limb * 1.1, hip), (x + limb * 1.1, hip), (foot + limb, 0), (foot - limb, 0)]
        canvas.facing_polygon(leg, z, canvas.shade(legs, z, gain), PERSON)
        canvas.box((foot - limb, foot + limb * 1.5), (0, 0.09), z, shoe, PERSON)
    for side, gain in ((-1, 0.78), (1, 0.9)):
        a = x + side * broad * 0.95
        hand = a - side * stride * 0.8
        arm = [(a - limb * 0.7, shoulder), (a + limb * 0.7, shoulder)]
        arm += [(hand + limb * 0.6, hip - 0.04), (hand - limb * 0.6, hip - 0.04)]
        canvas.facing_polygon(arm, z, canvas.shade(coat, z, gain), PERSON)
    torso = [(x - broad * 0.8, hip - 0.06), (x + broad * 0.8, hip - 0.06)]
    torso += [(x + broad, shoulder), (x + broad * 0.5, neck), (x - broad * 0.5, neck)]
    torso += [(x - broad, shoulder)]
    canvas.facing_polygon(torso, z, canvas.shade(coat, z), PERSON)
    head = max(0.13 * unit, canvas.meters(1.7, z))
    crown = height - head
    canvas.box((x - head * 0.5, x + head * 0.5), (neck - 0.04, crown), z, skin, PERSON)
    hair = canvas.choose([(42, 32, 28), (96, 70, 46), (180, 172, 166), (28, 26, 28)], 6)
    canvas.disc((x, crown, z), head, canvas.shade(hair, z), PERSON)
    canvas.disc((x, crown - head * 0.25, z), head * 0.78, skin, PERSON)
    if rng.random() < 0.3:
        side = 1 if rng.random() < 0.5 else -1
        a = x + side * broad * 1.1
        bag = canvas.shade(canvas.choose(CLOTHES), z)
        canvas.box((a - 0.1, a + 0.14), (hip - 0.3, hip + 0.02), z, bag, PERSON)
