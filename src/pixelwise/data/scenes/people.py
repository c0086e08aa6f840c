"""The people on the pavements and on the road."""

from __future__ import annotations

from functools import partial

from pixelwise.data.scenes.canvas import Canvas, Shadows
from pixelwise.data.scenes.scene_classes import CLOTHES, PERSON, SKINS, THIN
from pixelwise.data.scenes.street import Street, Thing


def place_people(canvas: Canvas, street: Street, shadows: Shadows) -> list[Thing]:
    """Two to five people, three quarters of them on a pavement, all of them in view."""
    rng = canvas.rng
    things: list[Thing] = []
    left, right = street.kerbs
    for number in range(int(rng.integers(2, 6))):
        # The first two are near, so that no scene is without a person of some size.
        z = float(rng.uniform(4.2, 6.4)) if number < 2 else float(rng.uniform(5.0, 9))
        if rng.random() < 0.75:
            side = street.side_in_view(canvas, z)
            widest = max(0.9, street.wall - street.half - 0.6)
            x = street.pavement(side, float(rng.uniform(0.7, widest)))
        else:
            x = float(rng.uniform(left + 0.5, right - 0.5))
        reach = canvas.edge(z) * 0.85
        x = min(max(x, -reach), reach)
        height = float(rng.uniform(1.5, 1.92))
        stride = float(rng.uniform(0.03, 0.2))
        things.append((z, partial(_draw_person, canvas, x, z, height, stride)))
        shadows.upright(x, z, 0.2, height)
    return things


def _draw_person(canvas: Canvas, x: float, z: float, height: float, stride: float) -> None:
    """Somebody walking along the street; `stride` is how far, in meters, a foot is to the side."""
    rng = canvas.rng
    coat, legs = canvas.pick(CLOTHES), canvas.pick(CLOTHES[:5])
    skin = canvas.tint(canvas.pick(SKINS, 5), z)
    shoe = canvas.tint((34, 30, 30), z)
    unit = height / 1.75
    shoulder, hip, neck = 1.42 * unit, 0.84 * unit, 1.5 * unit
    broad = max(0.25 * unit, canvas.meters(THIN, z) / 2)
    limb = max(0.1 * unit, canvas.meters(2.4, z) / 2)
    for move, gain in ((-stride, 0.8), (stride, 1.0)):
        foot = x + move
        leg = [(x - limb * 1.1, hip), (x + limb * 1.1, hip), (foot + limb, 0), (foot - limb, 0)]
        canvas.upright(leg, z, canvas.tint(legs, z, gain), PERSON)
        canvas.box((foot - limb, foot + limb * 1.5), (0, 0.09), z, shoe, PERSON)
    for side, gain in ((-1, 0.78), (1, 0.9)):
        a = x + side * broad * 0.95
        hand = a - side * stride * 0.8
        arm = [(a - limb * 0.7, shoulder), (a + limb * 0.7, shoulder)]
        arm += [(hand + limb * 0.6, hip - 0.04), (hand - limb * 0.6, hip - 0.04)]
        canvas.upright(arm, z, canvas.tint(coat, z, gain), PERSON)
    torso = [(x - broad * 0.8, hip - 0.06), (x + broad * 0.8, hip - 0.06)]
    torso += [(x + broad, shoulder), (x + broad * 0.5, neck), (x - broad * 0.5, neck)]
    torso += [(x - broad, shoulder)]
    canvas.upright(torso, z, canvas.tint(coat, z), PERSON)
    head = max(0.13 * unit, canvas.meters(1.7, z))
    crown = height - head
    canvas.box((x - head * 0.5, x + head * 0.5), (neck - 0.04, crown), z, skin, PERSON)
    hair = canvas.pick([(42, 32, 28), (96, 70, 46), (180, 172, 166), (28, 26, 28)], 6)
    canvas.disc((x, crown, z), head, canvas.tint(hair, z), PERSON)
    canvas.disc((x, crown - head * 0.25, z), head * 0.78, skin, PERSON)
    if rng.random() < 0.3:
        side = 1 if rng.random() < 0.5 else -1
        a = x + side * broad * 1.1
        bag = canvas.tint(canvas.pick(CLOTHES), z)
        canvas.box((a - 0.1, a + 0.14), (hip - 0.3, hip + 0.02), z, bag, PERSON)
