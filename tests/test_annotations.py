"""What annotation tools write besides the plain cases: read as meant, counted, or refused."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniatures import (
    CAR,
    MINIATURES,
    TREE,
    blobs,
    coco,
    cvat,
    label_studio,
    labelme,
    voc,
    write_image,
    write_mask,
    yolo,
)
from pixelwise.data import layouts
from pixelwise.data.convert_dataset import convert_data
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.errors import InputError, collapse


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refusal(root: Path) -> tuple[str, ...]:
    """The lines of the error that opening the dataset raises."""
    with pytest.raises(InputError) as raised:
        open_dataset(root, draw_val=False)
    return raised.value.problems


def mask_of(data: SegmentationData, stem: str) -> Any:
    samples = [s for split in data.splits.values() for s in split if s.image.stem == stem]
    (sample,) = samples
    return data.read(sample)[1]


def png(pixels: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


# Equal problems.


def test_equal_problems_are_joined_with_their_number_and_examples() -> None:
    lines = [
        f"/d/images/{n} x.jpg: has no mask: add /d/masks/{n} x.png"
        for n in ("aa", "bb", "cc", "dd")
    ]
    assert collapse(lines[:3]) == lines[:3]
    assert collapse([lines[0], "a: other: b", *lines[1:]]) == [
        f"{lines[0]} (4 such problems; also bb x.jpg and cc x.jpg)",
        "a: other: b",
    ]
    of_one_file = [f"/d/a.json: image 'p{n}.png' is not in /d: add it" for n in range(5)]
    assert collapse(of_one_file) == [
        f"{of_one_file[0]} (5 such problems; also 'p1.png' and 'p2.png')"
    ]
    assert str(InputError(*of_one_file)) == collapse(of_one_file)[0]
    assert InputError(*of_one_file).problems == tuple(of_one_file)


# COCO.


def coco_files(root: Path) -> list[Path]:
    return [root / "annotations" / f"instances_{split}.json" for split in ("train", "val")]


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_results_of_commands_are_no_annotations(tmp_path: Path, folder: str) -> None:
    coco(tmp_path)
    before = open_dataset(tmp_path, draw_val=False)
    for name, images in (("evaluate", 3), ("select", [{"image": "a.png"}])):
        content = {"written_by": f"pixelwise {name}", "images": images}
        (tmp_path / folder / f"{name}.json").write_text(json.dumps(content))
    assert open_dataset(tmp_path, draw_val=False).checksums == before.checksums


def test_an_image_id_of_two_files_is_refused(tmp_path: Path) -> None:
    coco(tmp_path)
    edit_json(coco_files(tmp_path)[0], lambda c: c["images"][1].update(id=c["images"][0]["id"]))
    lines = refusal(tmp_path)
    assert "image id 0 belongs to photo_0.jpg and to photo_1.jpg" in lines[0]
    assert lines[0].startswith(f"{coco_files(tmp_path)[0]}: ")


def test_a_category_id_with_two_names_is_refused(tmp_path: Path) -> None:
    coco(tmp_path)
    edit_json(coco_files(tmp_path)[0], lambda c: c["categories"][1].update(id=3))
    (line,) = refusal(tmp_path)
    assert line.endswith("category 3 is both 'road' and 'car': give each its own id")


def test_categories_of_one_name_are_one_class_in_all_files(tmp_path: Path) -> None:
    expected = coco(tmp_path)

    def renumber(content: Any) -> None:
        for entry in content["categories"]:
            entry["id"] += 1000
        for entry in content["annotations"]:
            entry["category_id"] += 1000

    edit_json(coco_files(tmp_path)[1], renumber)
    data = open_dataset(tmp_path, draw_val=False)
    assert list(data.classes.names) == expected.names
    for stem, mask in expected.masks["val"].items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


@pytest.mark.parametrize("group", ["things", "car"])
def test_a_category_that_only_groups_others_is_no_class(tmp_path: Path, group: str) -> None:
    expected = coco(tmp_path)
    for path in coco_files(tmp_path):
        edit_json(
            path,
            lambda c: (
                [entry.update(supercategory=group) for entry in c["categories"]],
                c["categories"].insert(0, {"id": 0, "name": group, "supercategory": "none"}),
            ),
        )
    data = open_dataset(tmp_path, draw_val=False)
    assert list(data.classes.names) == expected.names
    assert ("only group others are no classes: things" in " ".join(data.notes)) == (group != "car")
    edit_json(coco_files(tmp_path)[0], lambda c: c["annotations"][0].update(category_id=0))
    if group == "car":
        assert "categories 0 and 7 are both named 'car'" in refusal(tmp_path)[0]
    else:
        assert open_dataset(tmp_path).classes.names[1] == "things"


@pytest.mark.parametrize(
    "folder", ["data", "JPEGImages", "imgs", "photos", "Images/default", "x/y"]
)
@pytest.mark.parametrize("name", ["latest.json", "annotations/evaluation_set.json", "labels.json"])
def test_coco_images_may_be_in_any_folder(tmp_path: Path, folder: str, name: str) -> None:
    expected = coco(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    for path in (tmp_path / "images/train").iterdir():
        path.rename(tmp_path / folder / path.name)
    shutil.rmtree(tmp_path / "images")
    coco_files(tmp_path)[1].unlink()
    coco_files(tmp_path)[0].rename(tmp_path / name)
    data = open_dataset(tmp_path, draw_val=False)
    assert list(data.splits) == ["all"]
    for stem, mask in expected.masks["train"].items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


def test_exports_in_a_form_that_is_not_read_are_explained(tmp_path: Path) -> None:
    """CVAT's own format, and YOLO from Label Studio: without data.yaml, but with a JSON file."""
    yolo(tmp_path / "a")
    names = layouts.yolo.class_names(tmp_path / "a" / "data.yaml")
    (tmp_path / "a" / "data.yaml").unlink()
    shutil.copytree(tmp_path / "a" / "images", tmp_path / "b" / "images")
    (tmp_path / "a" / "notes.json").write_text('{"categories": [], "info": {}}')
    (tmp_path / "a" / "classes.txt").write_text("\n".join(names))
    (line,) = refusal(tmp_path / "a")
    text, _, line_of_yaml = line[:-1].rpartition(": `")
    assert text == (
        f"{tmp_path / 'a' / 'labels'}: holds label files of YOLO, but "
        f"{tmp_path / 'a' / 'data.yaml'} does not exist: write the names of the classes into it"
    )
    (tmp_path / "a" / "data.yaml").write_text(line_of_yaml)
    assert layouts.read(tmp_path / "a").layout == "yolo"
    (tmp_path / "b" / "annotations.xml").write_text("<annotations/>")
    (line,) = refusal(tmp_path / "b")
    assert line.endswith("export the task as 'Segmentation mask 1.1' or 'COCO 1.0'")


def test_a_flat_list_of_coordinates_is_explained(tmp_path: Path) -> None:
    coco(tmp_path)
    flat = {"segmentation": [1, 1, 9, 1, 9, 9]}
    edit_json(coco_files(tmp_path)[0], lambda c: c["annotations"][0].update(flat))
    (line,) = refusal(tmp_path)
    assert "annotation 0: its segmentation is a list of numbers: write a list of polygons" in line


# YOLO.


def test_label_files_are_found_in_any_letter_case(tmp_path: Path) -> None:
    expected = yolo(tmp_path)
    (tmp_path / "labels/train/photo_0.txt").rename(tmp_path / "labels/train/PHOTO_0.TXT")
    data = open_dataset(tmp_path, draw_val=False)
    np.testing.assert_array_equal(mask_of(data, "photo_0"), expected.masks["train"]["photo_0"])


@pytest.mark.parametrize("train", ["images/train", "train.txt"])
def test_label_files_may_be_beside_some_images(tmp_path: Path, train: str) -> None:
    expected = yolo(tmp_path)
    (tmp_path / "labels/train/photo_0.txt").rename(tmp_path / "images/train/photo_0.txt")
    (tmp_path / "images/train/notes.txt").write_text("not a label file")
    (tmp_path / "train.txt").write_text("".join(f"images/train/photo_{n}.jpg\n" for n in range(3)))
    names = "names: [tree, car, road]\n"
    (tmp_path / "data.yaml").write_text(f"train: {train}\nval: images/val\n{names}")
    data = open_dataset(tmp_path, draw_val=False)
    for stem, mask in expected.masks["train"].items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


def test_a_folder_called_images_may_be_inside_the_images(tmp_path: Path) -> None:
    """Ultralytics would look for the label file in images/labels/."""
    expected = yolo(tmp_path)
    names = "names: [tree, car, road]\n"
    (tmp_path / "data.yaml").write_text(f"train: train.txt\nval: images/val\n{names}")
    for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
        (tmp_path / kind / "train/images").mkdir()
        old = tmp_path / kind / f"train/photo_1{suffix}"
        old.rename(tmp_path / kind / f"train/images/photo_1{suffix}")
    lines = [
        path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("images/train/**/*.jpg")
    ]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    data = open_dataset(tmp_path, draw_val=False)
    for stem, mask in expected.masks["train"].items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


def test_images_may_be_nested_deeper_than_their_label_files(tmp_path: Path) -> None:
    expected = yolo(tmp_path)
    for path in sorted((tmp_path / "images/train").iterdir()):
        folder = tmp_path / "images/train" / f"camera {path.stem[-1]}"
        folder.mkdir()
        path.rename(folder / path.name)
    data = open_dataset(tmp_path, draw_val=False)
    for stem, mask in expected.masks["train"].items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


@pytest.mark.parametrize("paths", ["train: images/train\nval: images/val\n", ""])
def test_a_split_without_label_files_is_not_all_background(tmp_path: Path, paths: str) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"{paths}names: [tree, car, road]\n")
    shutil.rmtree(tmp_path / "labels/train")
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'images/train'}: none of its 3 images has a label file")


def test_a_label_file_of_no_image_is_not_ignored_if_an_image_has_none(tmp_path: Path) -> None:
    yolo(tmp_path)
    label = tmp_path / "labels/val/photo_3.txt"
    label.rename(label.with_name("photo 3.txt"))
    (tmp_path / "val.txt").write_text("images/val/photo_3.jpg\nimages/val/photo_4.jpg\n")
    names = "names: [tree, car, road]\n"
    for val in ("images/val", "val.txt"):
        (tmp_path / "data.yaml").write_text(f"train: images/train\nval: {val}\n{names}")
        lines = refusal(tmp_path)
        assert f"{label.with_name('photo 3.txt')}: has no image: add " in lines[0]


def test_a_yolo_test_split_without_labels_is_skipped(tmp_path: Path) -> None:
    yolo(tmp_path)
    write_image(tmp_path / "images/test/x.jpg", 9)
    names = "names: [tree, car, road]\n"
    (tmp_path / "data.yaml").write_text(
        f"train: images/train\nval: images/val\ntest: images/test\n{names}"
    )
    data = open_dataset(tmp_path)
    assert list(data.splits) == ["train", "val"]
    assert "test is skipped: none of its images has a label file (1 listed)" in data.notes


def test_images_outside_the_yolo_splits_are_refused(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [tree, car, road]\n")
    write_image(tmp_path / "images/later/x.jpg", 9)
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'images/later/x.jpg'}: is outside the splits: move it")


def test_a_data_yaml_may_have_another_name(tmp_path: Path) -> None:
    expected = yolo(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "My project.yml")
    (tmp_path / "training.yaml").write_text("train:\n  epochs: 3\n")
    assert layouts.read(tmp_path).layout == "yolo"
    data = open_dataset(tmp_path, draw_val=False)
    np.testing.assert_array_equal(mask_of(data, "photo_0"), expected.masks["train"]["photo_0"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{0: yes, 1: no, 2: on}", ["yes", "no", "on"]),
        ("[1.10, 010, 2001-01-01]", ["1.10", "010", "2001-01-01"]),
        ("[null, ~, 0x1]", ["null", "~", "0x1"]),
    ],
)
def test_yaml_scalars_are_names_as_written(tmp_path: Path, names: str, expected: list[str]) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    assert list(layouts.read(tmp_path).classes.names[1:]) == expected  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b, c]\nnc: 4\n", "nc is '4', but there are 3 names: correct one of them"),
        ("names: {0: a, 1: b, 1: c}\n", "the key '1' occurs twice"),
        ("names: [a, 'a ', c]\n", "class name 'a' is used twice"),
        ("names: [a, b, c]\nkpt_shape: [2, 2]\n", "boxes and key points, not polygons"),
    ],
)
def test_contradictions_in_a_data_yaml_are_refused(tmp_path: Path, text: str, message: str) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'data.yaml'}: ")
    assert message in line


def test_a_class_number_is_whole(tmp_path: Path) -> None:
    yolo(tmp_path)
    path = tmp_path / "labels/train/photo_0.txt"
    text = path.read_text()
    path.write_text("1.0" + text[1:])
    open_dataset(tmp_path)
    path.write_text("0.5" + text[1:])
    assert "line 1: class 0.5 is not in data.yaml" in refusal(tmp_path)[0]


# CVAT and VOC.


def test_frames_without_a_mask_are_left_out_and_counted(tmp_path: Path) -> None:
    cvat(tmp_path)
    (tmp_path / "SegmentationClass/photo_1.png").unlink()
    data = open_dataset(tmp_path, draw_val=False)
    assert [sample.image.stem for sample in data.splits["train"]] == ["photo_0", "photo_2"]
    assert "frames left out because they have no mask: 1" in data.notes
    mask = tmp_path / "SegmentationClass/photo_2.png"
    mask.rename(mask.with_name("other.png"))
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{mask.with_name('other.png')}: belongs to no image: add the image")


def test_cvat_masks_keep_the_folders_of_their_images(tmp_path: Path) -> None:
    expected = cvat(tmp_path)
    lists = tmp_path / "ImageSets/Segmentation"
    for kind, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        for camera, stem in (("north 1", "photo_0"), ("south", "photo_1")):
            (tmp_path / kind / camera).mkdir()
            old = tmp_path / kind / f"{stem}{suffix}"
            old.rename(tmp_path / kind / camera / f"frame{suffix}")
    (lists / "Train.txt").write_text("north 1/frame\nsouth/frame\nphoto_2\n")
    data = open_dataset(tmp_path, draw_val=False)
    for sample, stem in zip(data.splits["train"], ["photo_0", "photo_1", "photo_2"], strict=True):
        np.testing.assert_array_equal(data.read(sample)[1], expected.masks["train"][stem])
    shutil.move(tmp_path / "SegmentationClass/south/frame.png", tmp_path / "frame.png")
    shutil.rmtree(tmp_path / "SegmentationClass/north 1")
    shutil.move(tmp_path / "frame.png", tmp_path / "SegmentationClass/frame.png")
    assert any("frame.png: image 'frame' can be " in line for line in refusal(tmp_path))


def test_columns_of_a_list_are_used_if_no_line_is_a_name(tmp_path: Path) -> None:
    voc(tmp_path)
    path = tmp_path / "ImageSets/Segmentation/train.txt"
    path.write_text("photo_0  1\nphoto_1 -1\nphoto_2  0\n")
    assert len(open_dataset(tmp_path).splits["train"]) == 3
    path.write_text("photo_0\nphoto_1 2\n")  # one of the lines is a name: all are
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'JPEGImages/photo_1 2.jpg'}: does not exist, but ")


def test_two_lines_for_one_image_are_refused(tmp_path: Path) -> None:
    voc(tmp_path)
    path = tmp_path / "ImageSets/Segmentation/train.txt"
    path.write_text("photo_0\nJPEGImages/photo_0.jpg\n")
    (line,) = refusal(tmp_path)
    assert f"belongs to line 1 of {path} and to line 2 of {path}: keep one" in line


@pytest.mark.parametrize(
    ("png_folder", "npy_folder"),
    [("SegmentationClass", "SegmentationClassNpy"), ("SegmentationClassPNG", "SegmentationClass")],
)
def test_the_voc_export_of_labelme_is_read(
    tmp_path: Path, png_folder: str, npy_folder: str
) -> None:
    """Its arrays hold -1 for void, and its palette PNG files 255."""
    masks = {f"photo_{number}": blobs(number, 3, void=True) for number in range(3)}
    for stem, mask in masks.items():
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg", 1)
        write_image(tmp_path / "SegmentationClassVisualization" / f"{stem}.jpg", 2)
        write_mask(tmp_path / png_folder / f"{stem}.png", mask, [(0, 0, 0)] * 256)
        (tmp_path / npy_folder).mkdir(exist_ok=True)
        np.save(tmp_path / npy_folder / f"{stem}.npy", np.where(mask == 255, -1, mask))
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog")
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names == ("background", "cat", "dog")
    assert data.classes.ignore == 255
    for stem, mask in masks.items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


# GeoJSON.


@pytest.mark.parametrize("system", [None, [], {"properties": None}, {"properties": {"name": None}}])
def test_a_reference_system_without_a_name_means_pixels(system: object, tmp_path: Path) -> None:
    expected = MINIATURES["geojson"](tmp_path)
    edit_json(tmp_path / "photo_0.geojson", lambda c: c.update(crs=system))
    data = open_dataset(tmp_path, draw_val=False)
    assert sum(map(len, data.splits.values())) == sum(map(len, expected.masks.values()))


# labelme.


def set_shape(root: Path, stem: str = "photo_0", **values: Any) -> None:
    edit_json(root / f"{stem}.json", lambda c: c.update(shapes=[{"label": CAR, **values}]))


@pytest.mark.parametrize("kind", ["rectangle", "rotation", "oriented_rectangle"])
def test_a_rectangle_of_four_points_is_the_polygon_of_its_corners(
    tmp_path: Path, kind: str
) -> None:
    labelme(tmp_path)
    points = [[10, 5], [20, 15], [15, 20], [5, 10]]
    masks = []
    for shape_type in (kind, "polygon"):
        set_shape(tmp_path, shape_type=shape_type, points=points, direction=0.78)
        masks.append(mask_of(open_dataset(tmp_path, draw_val=False), "photo_0"))
    np.testing.assert_array_equal(*masks)
    assert masks[0].any()
    set_shape(tmp_path, shape_type=kind, points=points[:3])
    assert f"shape 0 (car): a {kind} has 3 points, but needs" in refusal(tmp_path)[0]


def test_a_mask_shape_covers_the_pixels_of_its_png(tmp_path: Path) -> None:
    expected = labelme(tmp_path)
    inside = np.zeros((6, 8), dtype=np.uint8)
    inside[1:4, 2:7] = 255
    values = {"shape_type": "mask", "points": [[30, 20], [37, 25]], "mask": png(inside)}
    set_shape(tmp_path, **values)
    mask = np.zeros((40, 56), dtype=np.uint8)
    mask[21:24, 32:37] = expected.names.index(CAR)
    np.testing.assert_array_equal(mask_of(open_dataset(tmp_path, draw_val=False), "photo_0"), mask)
    for odd, message in (
        ({"points": [[30, 20], [38, 25]]}, "a mask shape is 8x6, but its points give 9x6"),
        ({"points": [[50, 20], [57, 25]]}, "covers columns 50 to 57 and rows 20 to 25, but the"),
        ({"mask": "no base64"}, "its mask is not base64"),
        ({"mask": base64.b64encode(b"x").decode()}, "a mask shape is damaged"),
        ({"mask": None}, "its mask is None: annotate it again"),
    ):
        set_shape(tmp_path, **{**values, **odd})
        assert message in refusal(tmp_path)[0]


def test_an_image_inside_a_labelme_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    expected = labelme(root)
    image = root / "photo_1.jpg"
    content = image.read_bytes()
    edit_json(
        root / "photo_1.json",
        lambda c: c.update(imageData=base64.b64encode(content).decode(), imagePath="gone.jpg"),
    )
    image.unlink()
    data = open_dataset(root, draw_val=False)
    np.testing.assert_array_equal(mask_of(data, "photo_1"), expected.masks["all"]["photo_1"])
    assert {sample.name for sample in data.splits["all"]} == {f"photo_{n}" for n in range(5)}
    convert_data(root, tmp_path / "plain")
    assert (tmp_path / "plain/images/photo_1.jpg").read_bytes() == content
    edit_json(root / "photo_1.json", lambda c: c.update(imageData="AAAA"))
    assert "photo_1.json: its imageData is not an image: put the image" in refusal(root)[0]


def test_all_faults_of_labelme_files_are_reported(tmp_path: Path) -> None:
    labelme(tmp_path)
    set_shape(tmp_path, "photo_0", shape_type="line", points=[[1, 1], [2, 2]])
    set_shape(tmp_path, "photo_1", shape_type="polygon", points=[[1, 1], [2, 2]])
    set_shape(tmp_path, "photo_2", label=" ", shape_type="polygon", points=[])
    assert "photo_2.json: shape 0 has an empty label" in refusal(tmp_path)[0]
    (tmp_path / "photo_2.json").unlink()
    lines = refusal(tmp_path)
    assert "photo_0.json: shape 0 (car): shape_type 'line' is not supported" in lines[0]
    assert "photo_1.json: shape 0 (car): a polygon has 2 of at least 3 corners" in lines[1]


def test_labelme_files_in_subfolders_are_read(tmp_path: Path) -> None:
    expected = labelme(tmp_path)
    (tmp_path / "more").mkdir()
    for suffix in (".jpg", ".json"):
        (tmp_path / f"photo_0{suffix}").rename(tmp_path / "more" / f"photo_0{suffix}")
    data = open_dataset(tmp_path, draw_val=False)
    np.testing.assert_array_equal(mask_of(data, "photo_0"), expected.masks["all"]["photo_0"])


# Label Studio.


def tasks_file(root: Path) -> Path:
    return root / "project-1-at-2026.json"


def set_reference(root: Path, number: int, reference: str) -> None:
    edit_json(tasks_file(root), lambda tasks: tasks[number]["data"].update(image=reference))


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/1/20240131-photo_0.jpg",  # the date is part of another image's name
        "/data/upload/1/31012024-photo_0.jpg",
        "00000001-photo_0.jpg",
        "/data/local-files/?d=set/0a1b2c3d-photo_0.jpg",  # files in a storage keep their names
        "s3://bucket/0a1b2c3d-photo_0.jpg",
    ],
)
def test_a_name_that_need_not_be_an_upload_is_not_shortened(tmp_path: Path, reference: str) -> None:
    label_studio(tmp_path)
    set_reference(tmp_path, 0, reference)
    (line,) = refusal(tmp_path)
    assert f"task 0: its image {reference!r} is not in {tmp_path}: put it there" in line


def test_two_uploads_of_one_name_are_refused(tmp_path: Path) -> None:
    label_studio(tmp_path)
    set_reference(tmp_path, 1, "/data/upload/1/ffffffff-photo_0.jpg")
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'images/photo_0.jpg'}: belongs to task 0 of ")
    assert "and to task 1 of " in line
    set_reference(tmp_path, 1, "/data/upload/1/0a1b2c3d-photo_1.jpg")
    set_reference(tmp_path, -1, "/data/upload/1/ffffffff-photo_0.jpg")  # a task not yet annotated
    assert "belongs to task 0 of" in refusal(tmp_path)[0]
    set_reference(tmp_path, -1, "/data/upload/1/0a1b2c3d-photo_0.jpg")  # the same image again
    assert len(open_dataset(tmp_path, draw_val=False).splits["all"]) == 5


def test_an_uploaded_name_is_that_of_the_original(tmp_path: Path) -> None:
    label_studio(tmp_path)
    (tmp_path / "images/photo_0.jpg").rename(tmp_path / "images/my photo (1).jpg")
    set_reference(tmp_path, 0, "/data/upload/1/0a1b2c3d-my_photo_1.jpg")
    names = [sample.image.name for sample in open_dataset(tmp_path, draw_val=False).splits["all"]]
    assert names[0] == "my photo (1).jpg"


def test_names_in_two_folders_need_the_folder(tmp_path: Path) -> None:
    expected = label_studio(tmp_path)
    for folder, stem in (("a", "photo_0"), ("b", "photo_1")):
        (tmp_path / "images" / folder).mkdir()
        (tmp_path / f"images/{stem}.jpg").rename(tmp_path / f"images/{folder}/001.jpg")
    set_reference(tmp_path, 0, "/data/local-files/?d=set/a/001.jpg")
    set_reference(tmp_path, 1, "/data/local-files/?d=set%5Cb%5C001.jpg")
    data = open_dataset(tmp_path, draw_val=False)
    for sample, stem in zip(data.splits["all"][:2], ("photo_0", "photo_1"), strict=True):
        np.testing.assert_array_equal(data.read(sample)[1], expected.masks["all"][stem])
    set_reference(tmp_path, 1, "001.jpg")
    assert "task 1: its image '001.jpg' can be " in refusal(tmp_path)[0]


def set_results(root: Path, change: Callable[[list[Any]], object]) -> None:
    """Change the results of the first task: road (brush), tree (polygon), car (rectangle)."""
    edit_json(tasks_file(root), lambda tasks: change(tasks[0]["annotations"][1]["result"]))


def test_relations_and_labels_of_regions_are_understood(tmp_path: Path) -> None:
    expected = label_studio(tmp_path)

    def change(results: list[Any]) -> None:
        tree = results[1]
        labels = {**tree, "type": "labels", "id": "t", "value": {"labels": [TREE]}}
        tree |= {"type": "polygon", "id": "t", "value": {"points": tree["value"]["points"]}}
        note = {"type": "choices", "id": "t", "value": {"choices": ["tall"]}}
        results += [labels, note, {"type": "relation", "from_id": "t", "to_id": "c"}]

    set_results(tmp_path, change)
    data = open_dataset(tmp_path, draw_val=False)
    np.testing.assert_array_equal(mask_of(data, "photo_0"), expected.masks["all"]["photo_0"])


def test_regions_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    label_studio(tmp_path)
    set_results(tmp_path, lambda results: results[1]["value"].pop("polygonlabels"))
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names.index(TREE) not in mask_of(data, "photo_0")
    assert "regions left out because they have no label: 1" in data.notes
    set_results(tmp_path, lambda results: results[2]["value"]["rectanglelabels"].append(TREE))
    assert "task 0: a region has the labels car, tree: keep one of them" in refusal(tmp_path)[0]


def test_all_faults_of_label_studio_tasks_are_reported(tmp_path: Path) -> None:
    label_studio(tmp_path)
    set_results(tmp_path, lambda results: results[2]["value"].update(width=-1))
    set_results(tmp_path, lambda results: results[1]["value"].update(points=[[1, 1]]))
    lines = refusal(tmp_path)
    assert "task 0: tree: a polygon has 1 of at least 3 corners" in lines[0]
    assert "task 0: car: its x, y, width and height are" in lines[1]


def test_regions_of_a_rotated_image_are_refused(tmp_path: Path) -> None:
    label_studio(tmp_path)
    set_results(tmp_path, lambda results: results[0].update(image_rotation=90))
    (line,) = refusal(tmp_path)
    assert "task 0: a region was drawn on the image rotated by 90 degrees: rotate it back" in line


def test_regions_of_a_second_image_are_refused(tmp_path: Path) -> None:
    MINIATURES["label studio"](tmp_path)
    set_results(tmp_path, lambda results: results[0].update(item_index=1))
    (line, *_) = refusal(tmp_path)
    assert "a region is on image 1 of a task with several images" in line


def test_the_ground_truth_of_several_annotations_is_used(tmp_path: Path) -> None:
    expected = MINIATURES["label studio"](tmp_path)

    def change(tasks: list[Any]) -> None:
        for task in tasks[:-1]:
            task["annotations"][-1]["ground_truth"] = True
            other = {"id": 8, "ground_truth": False, "result": tasks[1]["annotations"][1]["result"]}
            task["annotations"].insert(0, other)

    edit_json(tasks_file(tmp_path), change)
    data = open_dataset(tmp_path, draw_val=False)
    for stem, mask in expected.masks["all"].items():
        np.testing.assert_array_equal(mask_of(data, stem), mask)


def test_two_exports_are_refused(tmp_path: Path) -> None:
    label_studio(tmp_path)
    shutil.copy(tasks_file(tmp_path), tmp_path / "project-2.json")
    (line,) = refusal(tmp_path)
    assert "is an export, and project-2.json is another one: keep one" in line


# One name for two images.


def test_one_mask_of_two_images_is_refused(tmp_path: Path) -> None:
    MINIATURES["cityscapes"](tmp_path)
    image = sorted(tmp_path.rglob("*_leftImg8bit.png"))[0]
    write_image(image.with_name(image.name.replace("_leftImg8bit", "")), 5)
    (line,) = refusal(tmp_path)
    assert "is the mask of " in line
    assert image.name in line


def test_an_image_twice_in_a_pair_list_is_refused(tmp_path: Path) -> None:
    MINIATURES["pair lists"](tmp_path)
    write_mask(tmp_path / "truth/other.png", np.zeros((40, 56), np.uint8))
    with (tmp_path / "train.txt").open("a") as stream:
        stream.write("images/photo_0.jpg\ttruth/other.png\n")
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'images/photo_0.jpg'}: belongs to line 1 of ")


def test_a_list_without_pairs_beside_others_is_not_ignored(tmp_path: Path) -> None:
    MINIATURES["pair lists"](tmp_path)
    for split in ("train", "test"):
        path = tmp_path / f"{split}.txt"
        path.write_text("image mask\n" + (path.read_text() if path.exists() else ""))
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'train.txt'}: line 1 has 2 columns")
    (tmp_path / "train.txt").write_text((tmp_path / "train.txt").read_text().partition("\n")[2])
    assert "test is skipped: test.txt names no masks" in open_dataset(tmp_path).notes


@pytest.mark.parametrize("separator", ["\t", " ", ", "])
def test_names_in_pair_lists_may_have_spaces(tmp_path: Path, separator: str) -> None:
    expected = MINIATURES["pair lists"](tmp_path)
    for path in (*tmp_path.glob("images/*"), *tmp_path.glob("truth/*")):
        path.rename(path.with_name(path.name.replace("_", " ")))
    for split, masks in expected.masks.items():
        names = [stem.replace("_", " ") for stem in masks]
        lines = [f"images/{name}.jpg{separator}truth/{name}.png\n" for name in names]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    data = open_dataset(tmp_path, draw_val=False)
    for masks in expected.masks.values():
        for stem, mask in masks.items():
            np.testing.assert_array_equal(mask_of(data, stem.replace("_", " ")), mask)
