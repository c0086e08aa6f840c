"""What generated scenes are made of: their classes, measures and colors."""

from __future__ import annotations

from pixelwise.data.classes import Classes, Color

SCENE_CLASSES = Classes.make(
    ["sky", "building", "road", "pavement", "vegetation", "car", "pole", "person"],
    colors=[
        (116, 178, 222),
        (164, 120, 96),
        (92, 90, 108),
        (206, 186, 168),
        (84, 146, 76),
        (52, 84, 190),
        (240, 196, 48),
        (216, 58, 82),
    ],
    ignore=255,
)
"""What generated masks hold; "pole" is lamps, traffic lights and signs with their posts."""

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, CAR, POLE, PERSON = SCENE_CLASSES.values
VOID = SCENE_CLASSES.file_ignore

ROWS = 144.0  # lengths in the image are in 1/144 of its height, so every size shows one scene
OVERSAMPLING = 3  # odd, so that the middle sample of each block lies on the pixel's center
THIN = 5.8  # no pole is thinner, in ROWS: less would be lost at a decoder's stride of 4
NEAR, FAR = 1.6, 95.0  # meters; nothing is drawn nearer, no house stands farther

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
