"""Generated street scenes with exact masks: data for the demo and the tests, without a download.

A scene is a small world in metres: a straight street, rows of houses, and things that stand on
the ground, seen by a pinhole camera. Everything is drawn from far to near, once into the picture
and once into the mask, so what hides what is the same in both. The classes share colours on
purpose (grey cars on a grey road, brown houses behind brown trunks): a network has to learn shapes
and places too.

Each module imports only from those that follow it here: `files` (a data set on disk), `scene` (one
scene from its seed), `photograph` (what lens and sensor do), `houses`, `greenery`, `posts`,
`people`, `cars` (what stands where, and how it looks), `street` (plan, sky and ground), `canvas`
(light, camera, picture and mask), `world` (classes, measures and colours).
"""

from pixelwise.data.scenes.files import write_scenes
from pixelwise.data.scenes.scene import generate_scene
from pixelwise.data.scenes.world import SCENE_CLASSES

__all__ = ["SCENE_CLASSES", "generate_scene", "write_scenes"]
