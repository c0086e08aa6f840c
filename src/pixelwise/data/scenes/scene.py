"""One scene from its seed: planned, drawn from far to near, photographed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.scenes.camera import draw_bonnet, draw_smudge, render_image
from pixelwise.data.scenes.canvas import Canvas, Shadows, some_light
from pixelwise.data.scenes.cars import place_cars
from pixelwise.data.scenes.greenery import place_greenery
from pixelwise.data.scenes.houses import place_houses
from pixelwise.data.scenes.people import place_people
from pixelwise.data.scenes.posts import place_posts
from pixelwise.data.scenes.street import draw_backdrop, draw_ground, draw_sky, some_street
from pixelwise.errors import InputError

MIN_SIZE = 16


def check_request(seed: int, height: int, width: int) -> None:
    """Raise InputError for a negative seed, or a size below 16."""
    if height < MIN_SIZE or width < MIN_SIZE:
        raise InputError(f"scene of {height} x {width} pixels: allowed are {MIN_SIZE} and more")
    if seed < 0:
        raise InputError(f"seed {seed}: allowed are 0 and more")


def generate_scene(
    seed: int, *, height: int = 144, width: int = 192
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one street scene: an image (height, width, 3), RGB, and its mask (height, width).

    The mask holds the file values of SCENE_CLASSES, and its ignore value on a few void pixels (the
    camera car's bonnet, a drop on the lens). The same seed and size give the same scene.

    Raises InputError for a negative seed, or a size below 16.
    """
    check_request(seed, height, width)
    # One stream of chance runs through all that follows: another order is another scene.
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, some_light(rng), height, width)
    street = some_street(rng)
    shadows = Shadows(canvas)
    things = place_houses(canvas, street, shadows)
    steel = canvas.pick([(96, 100, 104), (66, 70, 70), (132, 134, 136)], 6)
    things += place_greenery(canvas, street, shadows)
    things += place_posts(canvas, street, shadows, steel)
    things += place_people(canvas, street, shadows)
    things += place_cars(canvas, street, shadows)
    draw_sky(canvas)
    draw_backdrop(canvas)
    draw_ground(canvas, street)
    shadows.lay()
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    if rng.random() < 0.2:
        draw_smudge(canvas)
    if rng.random() < 0.35:
        draw_bonnet(canvas)
    return render_image(canvas)
