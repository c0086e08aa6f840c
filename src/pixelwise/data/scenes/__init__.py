"""Generated street scenes with exact masks: data for the demo and the tests, without a download.

A scene is a small world in meters, seen by a pinhole camera: a straight street, rows of houses, and
objects on the ground. Objects are drawn from far to near into the image and the mask alike, so both
have the same occlusions. The classes share colors on purpose (gray cars on a gray road, brown
houses behind brown trunks): a network has to learn shapes and positions too.

Modules, each of which imports only from those after it: `scene_files` (a dataset on disk), `scene`
(one scene from its seed), `camera` (lens and sensor effects), `houses`, `greenery`, `posts`,
`people`, `cars` (the objects), `street` (layout of the street, sky and ground), `canvas` (light,
projection, image and mask), `scene_classes` (classes, dimensions and colors).
"""

from pixelwise.data.scenes.scene import generate_scene
from pixelwise.data.scenes.scene_classes import SCENE_CLASSES
from pixelwise.data.scenes.scene_files import write_scenes

__all__ = ["SCENE_CLASSES", "generate_scene", "write_scenes"]
