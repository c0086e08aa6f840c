"""The HTML report: complete, self-contained, escaped, and never half-written."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.errors import InputError
from pixelwise.evaluation.examples import MAX_SIDE
from pixelwise.report import Example, Gallery, write_report
from pixelwise.report.confusion_table import MAX_CLASSES, confusion_table
from pixelwise.report.example_images import WRONG
from pixelwise.report.run_report import _best_median_worst

CLASSES = Classes.make(["sky", '<b>road</b> & "kerb"', "car"], ignore=255)
VOID_TAGS = {"meta", "link", "img", "br", "line", "circle", "polyline", "rect"}


class Page(HTMLParser):
    """Collects tags and text, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """The text with all white space collapsed to single spaces."""
        return " ".join(" ".join(self.words).split())


def example(name: str = "one.png", *, height: int = 20, width: int = 30) -> Example:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (height, width), dtype=np.uint8)
    predicted = truth.copy()
    predicted[:5] = (truth[:5] + 1) % 3
    truth[-4:] = IGNORE
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Example(name, image, truth, predicted, 0.75)


def epochs(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "epoch": number,
            "loss": 2.0 / number,
            "learning_rate": 0.01 / number,
            "val_mean_iou": 1 - 0.5 / number,
            "seconds": 30.0,
            "images_per_second": 12.0,
            **changes,
        }
        for number in range(1, count + 1)
    ]


def scores() -> dict[str, Any]:
    return {
        "pixel_accuracy": 0.91234,
        "mean_accuracy": None,
        "mean_iou": 0.7654,
        "frequency_weighted_iou": 0.85,
        "pixels": 1234567,
        "mean_boundary_f1": 0.4321,
        "intervals": {
            "level": 0.95,
            "resamples": 1000,
            "images": 40,
            "mean_iou": [0.7, 0.8],
            "classes": {
                name: {"iou": interval}
                for name, interval in zip(
                    CLASSES.names, ([0.85, 0.951], [0.5, 0.7], None), strict=True
                )
            },
        },
        "expected_calibration_error": 0.0357,
        "reliability": [
            {"from": 0.0, "to": 0.5, "pixels": 0, "accuracy": None, "confidence": None},
            {"from": 0.5, "to": 1.0, "pixels": 10, "accuracy": 0.625, "confidence": 0.75},
        ],
        "classes": {
            name: {
                "iou": iou,
                "accuracy": iou,
                "precision": 0.123,
                "boundary_f1": iou,
                "share": share,
            }
            for name, iou, share in zip(CLASSES.names, (0.9, 0.6, None), (0.5, 0.5, 0), strict=True)
        },
    }


def write(path: Path, **changes: Any) -> Page:
    arguments: dict[str, Any] = {
        "title": "deeplab on <scenes>",
        "classes": CLASSES,
        "history": epochs(12),
        "scores": scores(),
        "confusion": np.array([[90, 10, 0], [30, 60, 0], [0, 0, 0]]),
        "galleries": [
            Gallery("Best predictions", [example("<best>.png")]),
            Gallery("Nothing", []),
            Gallery(
                "Worst predictions", [example("worst.png"), example("worse.png")], "How & why."
            ),
        ],
        "facts": {"data": "120 images & masks", "<seed>": "0"},
        "recipe": 'epochs = 12\nname = "<deeplab>"\n',
        "command": "pixelwise train 'a < b' --out run",
    }
    write_report(path, **{**arguments, **changes})
    return Page(path.read_text(encoding="utf-8"))


def test_epochs_without_validation_count(tmp_path: Path) -> None:
    history = [row for row in epochs(12) if row["epoch"] in (5, 10, 12)]
    page = write(tmp_path / "report.html", history=history)
    assert "12 epochs in 6:00 min, 12 images per second" in page.text


def test_the_page_shows_all_values(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html")
    for text in (
        "deeplab on <scenes>",
        "12 epochs in 6:00 min, 12 images per second",
        "76.5 %",
        "1 234 567",
        '<b>road</b> & "kerb"',
        "<best>.png",
        "120 images & masks",
        'name = "<deeplab>"',
        "pixelwise train 'a < b' --out run",
        "70.0 to 80.0 %",
        "Boundary F1 43.2 %",
        "Calibration error 3.6 %",
        "predicts 100.0 % of the pixels with a confidence between 50 % and 100 %",
        "Of these, 62.5 % are correct",
        "How & why.",
    ):
        assert text in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html")
    assert page.all("b") == page.all("scenes") == page.all("script") == []


def test_the_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html")
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r"https?://|url\(|@import|//[a-z]+\.", text) is None
    assert "default-src 'none'" in text


def test_absent_values_are_dashes_and_rows_follow_the_class_order(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html").text
    table = text[text.index("Scores by class") : text.index("Confusion between classes")]
    assert "car \N{EN DASH} \N{EN DASH} 12.3 % \N{EN DASH} 0.0 %" in table
    assert 'road</b> & "kerb" 60.0 % 50.0 to 70.0 % 60.0 % 12.3 % 60.0 % 50.0 %' in table
    assert table.index("sky") < table.index("road") < table.index("car")
    assert "Mean accuracy \N{EN DASH}" in text
    assert "None" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    "history",
    [
        epochs(1),
        epochs(3, loss=0.5, learning_rate=0.0, val_mean_iou=0.0),
        epochs(400, loss=1e-7, val_mean_iou=1.0),
        [*epochs(2, loss=float("nan")), {**epochs(3)[2], "loss": 1e9}],
        epochs(5, loss=-1.5),
    ],
)
def test_all_curves_stay_inside_their_chart(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    page = write(tmp_path / "report.html", history=history)
    assert len(page.all("svg")) == 4  # three curves and the reliability diagram
    for line in page.all("polyline"):
        points = [[*map(float, point.split(","))] for point in (line["points"] or "").split()]
        assert points
        assert all(0 <= x <= 360 and 0 <= y <= 210 for x, y in points)
    for tick in page.all("line"):
        assert 0 <= float(tick["y1"] or "nan") <= 260  # the reliability diagram is higher


def test_values_that_were_not_measured_have_no_curve(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", history=epochs(2, val_mean_iou=None))
    assert len(page.all("svg")) == 3
    plain = {k: v for k, v in scores().items() if k != "reliability"}
    page = write(tmp_path / "report.html", scores=plain, history=[], galleries=[], facts={})
    assert page.all("svg") == []


def images(page: Page) -> list[Image.Image]:
    found: list[Image.Image] = []
    for attributes in page.all("img"):
        kind, data = (attributes["src"] or "").split(",")
        assert kind in {"data:image/png;base64", "data:image/jpeg;base64"}
        found.append(Image.open(io.BytesIO(base64.b64decode(data))))
    return found


def test_each_example_has_four_images_of_its_size_with_alternative_texts(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html")
    found = images(page)
    assert [image.size for image in found] == [(30, 20)] * 12
    texts = [attributes["alt"] or "" for attributes in page.all("img")]
    assert texts[0] == "<best>.png: the image"
    assert "31.2\u202f% of the pixels are wrong" in texts[3]  # 5 of the 16 scored rows


def test_the_error_map_marks_wrong_pixels_except_ignored_ones(tmp_path: Path) -> None:
    sample = example()
    image, truth, predicted, errors = (
        np.asarray(shown.convert("RGB"))
        for shown in images(write(tmp_path / "report.html", galleries=[Gallery("One", [sample])]))
    )
    colors = CLASSES.color_table()
    assert np.abs(image.astype(int) - sample.image).mean() < 8  # a JPEG of noise
    assert np.array_equal(truth, colors[sample.truth])
    assert np.array_equal(predicted, colors[sample.predicted])
    marked = (errors == WRONG).all(axis=2)
    assert np.array_equal(marked, (sample.truth != sample.predicted) & (sample.truth != IGNORE))


def test_confident_errors_replace_all_errors_in_the_error_map(tmp_path: Path) -> None:
    sample = example()
    confident = np.zeros_like(sample.truth, dtype=bool)
    confident[2, :15] = True
    changed = dataclasses.replace(sample, confident_errors=confident)
    page = write(tmp_path / "report.html", galleries=[Gallery("Confident", [changed])])
    errors = np.asarray(images(page)[3].convert("RGB"))
    assert np.array_equal((errors == WRONG).all(axis=2), confident)
    assert "3.1\u202f% of the pixels are wrong with high confidence" in (
        page.all("img")[3]["alt"] or ""
    )


def test_the_largest_confusions_come_first() -> None:
    counts = np.array([[90, 10, 0], [30, 60, 10], [0, 0, 0]])
    table = confusion_table(counts, CLASSES)
    assert [(c["truth"], c["predicted"]) for c in table["largest"]] == [
        (CLASSES.names[1], "sky"),
        ("sky", CLASSES.names[1]),
        (CLASSES.names[1], "car"),
    ]
    assert table["largest"][0]["of_class"] == 0.3
    assert table["largest"][0]["of_errors"] == 0.6
    assert [row["name"] for row in table["rows"]] == [*CLASSES.names[:2]]  # car is nowhere true
    assert [cell["text"] for cell in table["rows"][0]["cells"]] == ["90", "10", ""]
    many = Classes.make([f"class {i}" for i in range(MAX_CLASSES + 1)])
    table = confusion_table(np.eye(MAX_CLASSES + 1, dtype=np.int64), many)
    assert table["rows"] == table["largest"] == []


@pytest.mark.parametrize("count", range(1, 12))
def test_best_median_and_worst_examples_do_not_overlap(count: int) -> None:
    ranked = [f"{number:02d}" for number in range(count)]
    best, median, worst = _best_median_worst(ranked)
    shown = [*best, *median, *worst]
    assert len(set(shown)) == len(shown) <= 9
    assert [*best, *median] == sorted([*best, *median])
    assert best[0] == ranked[0]
    assert count == 1 or worst[0] == ranked[-1]
    assert count < 9 or len(shown) == 9
    if count == 11:
        assert list(median) == ["04", "05", "06"]


def test_large_images_shrink_in_proportion(tmp_path: Path) -> None:
    large = example(height=400, width=2 * MAX_SIDE)
    page = write(tmp_path / "report.html", galleries=[Gallery("One", [large])])
    assert [image.size for image in images(page)] == [(MAX_SIDE, 200)] * 4


def test_an_ignored_image_is_shown(tmp_path: Path) -> None:
    sample = example()
    blank = Example("void.png", sample.image, np.full_like(sample.truth, IGNORE), sample.truth, 0.0)
    page = write(tmp_path / "report.html", galleries=[Gallery("One", [blank])])
    assert "void.png: no pixel is scored" in {attributes["alt"] for attributes in page.all("img")}


def test_a_failure_leaves_the_previous_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write(path, scores={"pixels": 1})
    assert path.read_bytes() == before
    write(path, title="another")
    assert path.read_bytes() != before
    assert [*tmp_path.iterdir()] == [path]  # no temporary file remains


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.html: cannot be written"):
        write(tmp_path / "missing" / "report.html")
