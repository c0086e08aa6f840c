"""Class tables: values, colors and names of the classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixelwise.data.classes import (
    IGNORE,
    UNKNOWN,
    Classes,
    distinct_colors,
    normalize_name,
    read_classes_toml,
    toml_has_colors,
    write_classes_toml,
)
from pixelwise.errors import InputError

BYTE = st.integers(0, 255)
COLOR = st.tuples(BYTE, BYTE, BYTE)
ODD = [
    '"',
    "'",
    "\\",
    "\n",
    "\r",
    "\t",
    "\0",
    "\x1f",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "é",
    "🚗",
]
NAME = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(ODD)), min_size=1)


@st.composite
def class_tables(draw: st.DrawFn, names: st.SearchStrategy[str] = NAME) -> Classes:
    """Draw any valid table: shuffled values with gaps, up to 255 classes, random colors."""
    count = draw(st.one_of(st.integers(1, 12), st.just(255)))
    values = draw(st.permutations(range(256)))
    if count == 255:
        labels = [f"class {i}" for i in range(count)]
        colors = list(distinct_colors(count))
    else:
        valid = names.map(normalize_name).filter(bool)  # names that look the same are one class
        labels = draw(st.lists(valid, min_size=count, max_size=count, unique=True))
        colors = draw(st.lists(COLOR, min_size=count, max_size=count, unique=True))
    return Classes(
        names=tuple(labels),
        colors=tuple(colors),
        values=tuple(values[:count]),
        ignore=draw(st.one_of(st.none(), st.just(values[count]))),
        ignore_color=draw(COLOR),
    )


def all_indices(classes: Classes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (1, C + 1): every class index, and IGNORE."""
    return np.array([[*range(len(classes)), IGNORE]], dtype=np.uint8)


@given(class_tables())
def test_indices_come_back_from_the_values_in_a_file(classes: Classes) -> None:
    index = all_indices(classes) if classes.ignore is not None else all_indices(classes)[:, :-1]
    stored = classes.to_value(index)
    assert stored[0, : len(classes)].tolist() == list(classes.values)
    np.testing.assert_array_equal(classes.to_index(stored), index)


@given(class_tables())
def test_an_ignored_pixel_is_never_written_as_a_class(classes: Classes) -> None:
    assert classes.file_ignore not in classes.values
    assert classes.to_value(all_indices(classes))[0, -1] == classes.file_ignore


@given(class_tables(), st.data())
def test_every_value_is_a_class_ignored_or_reported_as_unknown(
    classes: Classes, data: st.DataObject
) -> None:
    present = data.draw(st.lists(BYTE, min_size=1, max_size=30))
    mask = np.array([present], dtype=np.uint8)
    unknown = sorted(set(present) - {*classes.values, classes.ignore})
    assert np.unique(mask[classes.find_values(mask) == UNKNOWN]).tolist() == unknown
    if unknown:
        more = f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
        named = ", ".join(map(str, unknown[:12])) + more
        with pytest.raises(InputError, match=f"mask value {named} is not"):
            classes.to_index(mask)
    else:
        np.testing.assert_array_equal(classes.to_value(classes.to_index(mask)), mask)


def test_the_message_says_what_is_allowed() -> None:
    camvid = Classes.make(["a", "b", "c"], ignore=11)
    with pytest.raises(InputError, match=r"mask value 3, 9 is not .*\(0\.\.2, 11 ignored\)"):
        camvid.to_index(np.array([[0, 9, 3, 2, 11]], dtype=np.uint8))
    assert Classes.make(["a", "b"], values=[7, 0]).allowed() == "0, 7"


@given(class_tables(st.text("abc ", min_size=1)))
def test_colors_of_an_rgb_mask_become_indices(classes: Classes) -> None:
    index = all_indices(classes)
    if classes.ignore is None or classes.ignore_color in classes.colors:
        index = index[:, :-1]
    np.testing.assert_array_equal(classes.rgb_to_index(classes.color_table()[index]), index)


def test_a_color_outside_the_table_is_named() -> None:
    classes = Classes.make(["a", "b"], colors=[(255, 0, 0), (0, 255, 0)])
    mask = np.array([[(255, 0, 0), (254, 0, 0)]], dtype=np.uint8)
    with pytest.raises(InputError, match=r"color \(254, 0, 0\) is not in the class table"):
        classes.rgb_to_index(mask)
    black = np.zeros((1, 1, 3), dtype=np.uint8)  # ignore_color has no effect without ignore
    with pytest.raises(InputError, match=r"color \(0, 0, 0\)"):
        classes.rgb_to_index(black)


@pytest.mark.parametrize("count", [1, 21, 40])
def test_a_class_may_have_the_default_ignore_color(count: int) -> None:
    for shift in range(count):
        grays = [(37 * i + shift) % count for i in range(count)]
        classes = Classes.make(
            [f"gray {gray}" for gray in grays], colors=[(g, g, g) for g in grays], ignore=255
        )
        black = np.zeros((1, 1, 3), dtype=np.uint8)
        assert classes.rgb_to_index(black).tolist() == [[grays.index(0)]]


def test_an_rgb_mask_needs_distinct_class_colors() -> None:
    classes = Classes.make(["bus", "lorry"], colors=[(1, 2, 3), (1, 2, 3)])
    with pytest.raises(InputError, match=r"'bus' and 'lorry' share the color \(1, 2, 3\)"):
        classes.rgb_to_index(np.full((1, 1, 3), (1, 2, 3), dtype=np.uint8))


@given(class_tables())
def test_a_palette_gives_each_stored_value_the_color_of_its_class(classes: Classes) -> None:
    palette = np.frombuffer(classes.palette(), dtype=np.uint8).reshape(256, 3)
    index = all_indices(classes)
    np.testing.assert_array_equal(palette[classes.to_value(index)], classes.color_table()[index])
    assert tuple(palette[classes.file_ignore]) == classes.ignore_color


def test_generated_colors_are_distinct_and_stable() -> None:
    assert len(set(distinct_colors(255))) == 255
    assert distinct_colors(255)[:3] == distinct_colors(3)


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classes") / "classes.toml"


@given(classes=class_tables())
@example(classes=Classes.make([*dict.fromkeys(filter(bool, map(normalize_name, ODD)))]))
@example(classes=Classes.make(["".join(ODD)], ignore_color=(1, 2, 3)))
@example(classes=Classes.make(['a"]\n[[class]]\nname = "b']))
def test_classes_toml_round_trip(table_file: Path, classes: Classes) -> None:
    write_classes_toml(table_file, classes)
    assert read_classes_toml(table_file) == classes
    assert toml_has_colors(table_file)


@given(class_tables())
def test_json_round_trip(classes: Classes) -> None:
    assert Classes.from_json(json.loads(json.dumps(classes.to_json()))) == classes


def test_defaults_fill_in_what_classes_toml_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text('[[class]]\nname = "sky"\n[[class]]\nname = "road"\nvalue = 7\n')
    classes = read_classes_toml(path)
    assert classes == Classes.make(["sky", "road"], values=[0, 7])
    assert not toml_has_colors(path)


SKY = '[[class]]\nname = "sky"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no classes"),
        ("class = 3", "no classes"),
        ("class = [3]", "class 0 has no name"),
        ("[[class]]\nvalue = 0", "class 0 has no name"),
        ("[[class]]\nname = 3", "class 0 has no name"),
        ('[[class]]\nname = ""', "give every class a name"),
        (SKY + SKY, "'sky' is used twice"),
        (SKY + "colour = [1, 2, 3]", "unknown key 'colour': rename the key to `color`"),
        ("ignore_colour = [1, 2, 3]\n" + SKY, "rename the key to `ignore_color`"),
        (SKY + "tint = 3", "unknown key 'tint': allowed are name, color, value"),
        ("ignored = 255\n" + SKY, "unknown key 'ignored'"),
        (SKY + "value = 65536", "mask value 65536"),
        (SKY + "value = -1", "mask value -1"),
        (SKY + "value = 1.5", "mask value 1.5"),
        (SKY + "value = true", "mask value True"),
        (SKY + 'value = "1"', "mask value '1'"),
        ("ignore = inf\n" + SKY, "mask value inf"),
        ("ignore = 0\n" + SKY, "is both a class and ignored"),
        (SKY + "color = [1, 2]", "a color is three numbers"),
        (SKY + "color = 1", "a color is three numbers"),
        (SKY + "color = [1, 2, 256]", "color (1, 2, 256)"),
        (SKY + "color = [1, 2, 2.5]", "color (1, 2, 2.5)"),
        (SKY + 'color = "red"', "color ('r', 'e', 'd')"),
        ("ignore_color = [0, 0]\n" + SKY, "a color is three numbers"),
        ("[[class]\n", "invalid TOML"),
        ("\xff", "invalid TOML"),
        ("".join(f'[[class]]\nname = "{i}"\n' for i in range(256)), "256 classes"),
    ],
)
def test_a_bad_classes_toml_is_refused_in_one_line_with_its_name(
    tmp_path: Path, text: str, fault: str
) -> None:
    path = tmp_path / "classes.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as raised:
        read_classes_toml(path)
    (line,) = raised.value.problems
    assert line.startswith(f"{path}: ")
    assert fault in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"names": []}, "0 classes"),
        ({"names": [str(i) for i in range(256)]}, "256 classes"),
        ({"names": ["a", "a"]}, "'a' is used twice"),
        ({"names": ["a", ""]}, "give every class a name"),
        ({"names": ["a", 3]}, "class name 3"),
        ({"names": ["\ud800"]}, "not valid text"),
        ({"names": ["a", "b"], "values": [1, 1]}, "1 is used twice"),
        ({"names": ["a", "b"], "values": [0]}, "2 names, 2 colors and 1 values"),
        ({"names": ["a", "b"], "colors": [(0, 0, 0)]}, "2 names, 1 colors and 2 values"),
        ({"names": ["a"], "values": [65536]}, "mask value 65536"),
        ({"names": ["a"], "also_ignored": (7,)}, "also_ignored without ignore"),
        ({"names": ["a"], "values": [0.5]}, "mask value 0.5"),
        ({"names": ["a"], "ignore": -1}, "mask value -1"),
        ({"names": ["a"], "ignore": 0}, "is both a class and ignored"),
        ({"names": ["a"], "colors": [(0, 0)]}, "color (0, 0)"),
        ({"names": ["a"], "colors": [(0, 0, 256)]}, "color (0, 0, 256)"),
        ({"names": ["a"], "ignore_color": (0, 0, -1)}, "color (0, 0, -1)"),
    ],
)
def test_an_inconsistent_table_is_refused(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as raised:
        Classes.make(**arguments)
    assert fault in str(raised.value)


def test_several_values_can_be_ignored(tmp_path: Path) -> None:
    classes = Classes.make(["road", "car"], values=[7, 26], ignore=0, also_ignored=(1, 9))
    index = classes.to_index(np.array([[7, 26, 0, 1, 9]], dtype=np.uint8))
    assert index.tolist() == [[0, 1, IGNORE, IGNORE, IGNORE]]
    assert classes.to_value(index).tolist() == [[7, 26, 0, 0, 0]]
    write_classes_toml(tmp_path / "classes.toml", classes)
    assert read_classes_toml(tmp_path / "classes.toml") == classes
    assert Classes.from_json(classes.to_json()) == classes


def test_values_of_sixteen_bits_are_read_and_written_as_indices() -> None:
    classes = Classes.make(["wood", "field"], values=[311, 40000], ignore=0)
    index = classes.to_index(np.array([[311, 40000, 0]], dtype=np.uint16))
    assert index.tolist() == [[0, 1, IGNORE]]
    assert classes.to_value(index).tolist() == [[0, 1, 255]]
    palette = np.frombuffer(classes.palette(), dtype=np.uint8).reshape(256, 3)
    assert [tuple(color) for color in palette[:2].tolist()] == list(classes.colors)
    with pytest.raises(InputError, match="mask value 312 is not among the classes"):
        classes.to_index(np.array([[312]], dtype=np.uint16))


def test_indexed_classes_describe_masks_of_indices() -> None:
    classes = Classes.make(["a", "b"], values=[7, 9], ignore=3, also_ignored=(4,))
    assert classes.indexed() == Classes.make(["a", "b"], colors=classes.colors, ignore=255)


def test_a_class_table_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_bytes(b'\xef\xbb\xbf[[class]]\r\nname = "sky"\r\ncolor = [1, 2, 3]\r\n')
    assert read_classes_toml(path).names == ("sky",)
    assert toml_has_colors(path)
