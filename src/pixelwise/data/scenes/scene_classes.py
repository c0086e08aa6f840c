"""Classes, dimensions and colors of generated scenes."""

from __future__ import annotations

from pixelwise.data.classes import Classes, Color

_COLORS = {
    "sky": (116, 178, 222),
    "building": (164, 120, 96),
    "road": (92, 90, 108),
    "pavement": (206, 186, 168),
    "vegetation": (84, 146, 76),
    "car": (52, 84, 190),
    "pole": (240, 196, 48),
    "person": (216, 58, 82),
}
SCENE_CLASSES = Classes.make(list(_COLORS), colors=list(_COLORS.values()), ignore=255)
"""Classes of generated masks. "pole" includes lamps, traffic lights and signs with their posts."""

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, CAR, POLE, PERSON = SCENE_CLASSES.values
VOID = SCENE_CLASSES.file_ignore

ROWS = 144.0  # image lengths are in 1/144 of its height, so that all sizes show the same scene
OVERSAMPLING = 3  # odd, so that each pixel has a sample at its center
THIN = 5.8  # minimum width of poles, in rows: a decoder at stride 4 would lose thinner ones
NEAR, FAR = 1.6, 95.0  # depth in meters of the nearest surface and of the farthest house

WALLS: tuple[Color, ...] = (
    (156, 88, 70),
    (122, 92, 72),
    (206, 186, 152),
    (150, 148, 146),
    (222, 216, 204),
    (214, 190, 128),
    (128, 140, 154),
    (196, 158, 142),
    (104, 102, 104),
)
PAINTS: tuple[Color, ...] = (
    (118, 120, 124),
    (176, 178, 182),
    (226, 226, 224),
    (38, 40, 46),
    (160, 34, 34),
    (38, 66, 128),
    (86, 108, 78),
    (188, 140, 62),
    (92, 74, 62),
)
CLOTHES: tuple[Color, ...] = (
    (40, 44, 58),
    (62, 76, 118),
    (172, 48, 44),
    (206, 198, 186),
    (98, 92, 88),
    (76, 112, 84),
    (206, 160, 60),
    (128, 78, 110),
    (122, 88, 62),
)
SKINS: tuple[Color, ...] = ((236, 196, 168), (204, 152, 116), (148, 100, 72), (96, 66, 50))
LEAVES: tuple[Color, ...] = (
    (78, 120, 50),
    (98, 132, 58),
    (58, 98, 54),
    (104, 112, 62),
    (148, 122, 48),
)
SIGNS: tuple[Color, ...] = ((186, 34, 38), (34, 74, 156), (230, 190, 50), (228, 228, 224))
