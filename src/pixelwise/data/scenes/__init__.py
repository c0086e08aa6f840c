"""Generated street scenes with exact masks: data for the demo and the tests, without a download.

A scene is a small world in meters: a straight street, rows of houses, and things that stand on
the ground, seen by a pinhole camera. Everything is drawn from far to near, once into the image
and once into the mask, so what hides what is the same in both. The classes share colors on
purpose (gray cars on a gray road, brown houses behind brown trunks): a network has to learn shapes
and places too.

Each module imports only from those that follow it here: `files` (a data set on disk), `scene` (one
scene from its seed), `image` (what lens and sensor do), `houses`, `greenery`, `posts`,
`people`, `cars` (what stands where, and how it looks), `street` (plan, sky and ground), `canvas`
(light, camera, image and mask), `world` (classes, measures and colors).
"""

from pixelwise.data.scenes.scene import generate_scene
from pixelwise.data.scenes.scene_classes import SCENE_CLASSES
from pixelwise.data.scenes.scene_files import write_scenes

__all__ = ["SCENE_CLASSES", "generate_scene", "write_scenes"]
