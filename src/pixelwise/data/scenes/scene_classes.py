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


def _palette(colors: str) -> tuple[Color, ...]:
    """Parse RGB colors in hexadecimal notation."""
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, colors.split()))


WALLS = _palette("9c5846 7a5c48 ceba98 969492 ded8cc d6be80 808c9a c49e8e 686668")
PAINTS = _palette("76787c b0b2b6 e2e2e0 26282e a02222 264280 566c4e bc8c3e 5c4a3e")
CLOTHES = _palette("282c3a 3e4c76 ac302c cec6ba 625c58 4c7054 cea03c 804e6e 7a583e")
SKINS = _palette("ecc4a8 cc9874 946448 604232")
LEAVES = _palette("4e7832 62843a 3a6236 68703e 947a30")
SIGNS = _palette("ba2226 224a9c e6be32 e4e4e0")
