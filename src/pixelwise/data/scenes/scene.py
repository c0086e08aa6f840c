"""Generation of one scene from its seed: layout, drawing from far to near, camera effects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.scenes.camera import draw_hood, draw_smudge, render_image
from pixelwise.data.scenes.canvas import Canvas, Shadows, sample_light
from pixelwise.data.scenes.cars import place_cars
from pixelwise.data.scenes.greenery import place_greenery
from pixelwise.data.scenes.houses import place_houses
from pixelwise.data.scenes.people import place_people
from pixelwise.data.scenes.posts import place_posts
from pixelwise.data.scenes.street import draw_backdrop, draw_ground, draw_sky, sample_street
from pixelwise.errors import InputError

MIN_SIZE = 16


def check_arguments(seed: int, height: int, width: int) -> None:
    """Raise InputError if the seed is negative or a side is shorter than MIN_SIZE."""
    if height < MIN_SIZE or width < MIN_SIZE:
        raise InputError(f"scene of {height} x {width} pixels: use {MIN_SIZE} or more")
    if seed < 0:
        raise InputError(f"seed {seed}: use 0 or more")


def generate_scene(
    seed: int, *, height: int = 144, width: int = 192
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Generate one street scene. The same seed and size give the same scene.

    Args:
        seed: Random seed, 0 or more.
        height: Height of the image in pixels, 16 or more.
        width: Width of the image in pixels, 16 or more.

    Returns:
        The RGB image (height, width, 3) and its mask (height, width). The mask has the file values
        of SCENE_CLASSES, and their ignore value on a few void pixels (the hood of the camera's car,
        a drop on the lens).

    Raises:
        InputError: If the seed is negative or a side is too short.
    """
    check_arguments(seed, height, width)
    # All steps share one random generator, so their order determines the scene.
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, sample_light(rng), height, width)
    street = sample_street(rng)
    shadows = Shadows(canvas)
    objects = place_houses(canvas, street, shadows)
    steel = canvas.choose([(96, 100, 104), (66, 70, 70), (132, 134, 136)], 6)
    objects += place_greenery(canvas, street, shadows)
    objects += place_posts(canvas, street, shadows, steel)
    objects += place_people(canvas, street, shadows)
    objects += place_cars(canvas, street, shadows)
    draw_sky(canvas)
    draw_backdrop(canvas)
    draw_ground(canvas, street)
    shadows.apply()
    for _, draw in sorted(objects, key=lambda thing: -thing[0]):
        draw()
    if rng.random() < 0.2:
        draw_smudge(canvas)
    if rng.random() < 0.35:
        draw_hood(canvas)
    return render_image(canvas)
