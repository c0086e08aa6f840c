"""Videos keep their frames and times; results are complete or absent."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from killed_prediction import CLASSES, Brightness
from pixelwise.data.image_files import read_mask
from pixelwise.errors import InputError
from pixelwise.inference import Predictor
from pixelwise.inference.batch.video import frame_size, predict_video
from pixelwise.inference.output_names import base_names
from pixelwise.interrupts import StoppedError

HEIGHT, WIDTH, FRAMES = 48, 80, 12
TIMES = [0, 1, 2, 3, 5, 6, 7, 10, 11, 12, 13, 14]  # a variable rate, in units of 1/24 s


def frame_pixels(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Dark, with a bright top left corner that grows with the number."""
    pixels = np.full((height, width, 3), 20, dtype=np.uint8)
    pixels[: height // 2, : 8 + 4 * number] = 235
    return pixels


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str = "clip.mp4",
        *,
        size: tuple[int, int] = (HEIGHT, WIDTH),
        times: list[int] = TIMES,
        sound: bool = False,
        options: dict[str, str] | None = None,
        noise: int = 0,
        aspect_ratio: Fraction | None = None,
    ) -> Path:
        path = tmp_path / name
        rng = np.random.default_rng(0)
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream("libx264", rate=24, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv444p"
            stream.codec_context.time_base = Fraction(1, 24)
            if aspect_ratio is not None:
                stream.codec_context.sample_aspect_ratio = aspect_ratio
            if sound:
                audio = container.add_stream("aac", rate=8000, layout="mono")
                samples = av.AudioFrame.from_ndarray(
                    np.zeros((1, 4000), dtype=np.float32), format="fltp", layout="mono"
                )
                samples.sample_rate = 8000
                container.mux(audio.encode(samples))
                container.mux(audio.encode(None))
            for number, time in enumerate(times):
                pixels = frame_pixels(number, *size) + rng.integers(
                    0, noise + 1, (*size, 3), np.uint8
                )
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 24)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


def predict(path: Path, out: Path, runtime: Any = None, **options: Any) -> Any:
    return predict_video(Predictor(runtime or Brightness(), CLASSES), path, out, **options)


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [f.time for f in frames]


def test_a_video_keeps_its_frames_their_times_and_rate(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = make_video(sound=True), tmp_path / "out"
    seen: list[tuple[int, int]] = []
    result = predict(path, out, masks=True, progress=lambda *done: seen.append(done))
    assert (result.frames, result.faults) == (FRAMES, [])
    assert result.notes == [f"{path}: the sound is not copied"]
    assert seen[-1] == (FRAMES, FRAMES)
    assert sorted(entry.name for entry in out.iterdir()) == ["clip_masks", "clip_overlay.mp4"]
    before, times = frames_of(path)
    after, times_after = frames_of(result.overlay)
    assert times_after == pytest.approx(times, abs=1e-3)
    with av.open(str(result.overlay)) as container, av.open(str(path)) as original:
        assert len(container.streams) == 1
        rates = [video.streams.video[0].average_rate for video in (container, original)]
    assert float(rates[0]) == pytest.approx(
        float(rates[1]), rel=0.1
    )  # for the duration of the last frame
    predictor = Predictor(Brightness(), CLASSES)
    assert len(list((out / "clip_masks").iterdir())) == FRAMES
    for number, (source, shown) in enumerate(zip(before, after, strict=True), start=1):
        expected = predictor.segment(source)
        mask = read_mask(out / "clip_masks" / f"{number:06d}.png")
        np.testing.assert_array_equal(mask, expected.mask)
        overlay = np.asarray(expected.overlay(legend=False)).astype(int)
        difference = np.abs(shown[:HEIGHT, :WIDTH] - overlay)
        assert difference.mean() < 6  # H.264, with chroma at half the resolution
        assert shown.shape[0] > HEIGHT  # the legend


def set_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    """Write the display matrix of the track: ISO 14496-12, 8.3.2."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    for index, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        data[start + 4 * index : start + 4 * index + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2)])
def test_a_rotated_video_becomes_upright(
    matrix: tuple[int, ...], turns: int, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """As phones write it: frames are stored rotated, and the header has the rotation matrix."""
    path = make_video()
    set_matrix(path, matrix)
    predict(path, tmp_path / "out", masks=True)
    upright = np.rot90(frame_pixels(3), turns)
    mask = read_mask(tmp_path / "out" / "clip_masks" / "000004.png")
    np.testing.assert_array_equal(mask, upright[..., 0] // 86)
    (shown, *_), _ = frames_of(tmp_path / "out" / "clip_overlay.mp4")
    assert shown.shape[1] < shown.shape[0] or turns == 2


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
        ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
        ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1]),
        ((0, -1, 1, 0), np.rot90),
    ],
)
def test_a_mirrored_video_becomes_upright_and_keeps_its_proportions(
    matrix: tuple[int, ...],
    upright: Callable[[np.ndarray], np.ndarray],
    make_video: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """With pixels that are twice as wide as high, which become twice as high as wide if turned."""
    path = make_video(aspect_ratio=Fraction(2))
    set_matrix(path, matrix)
    result = predict(path, tmp_path / "out", masks=True)
    mask = read_mask(tmp_path / "out" / "clip_masks" / "000004.png")
    np.testing.assert_array_equal(mask, upright(frame_pixels(3))[..., 0] // 86)
    with av.open(str(result.overlay)) as container:
        ratio = container.streams.video[0].sample_aspect_ratio
    assert ratio == (Fraction(1, 2) if matrix[1] else 2)


@pytest.mark.parametrize("cover_first", [True, False])
def test_a_cover_image_is_not_predicted(cover_first: bool, tmp_path: Path) -> None:
    path, cover = tmp_path / "clip.mp4", np.full((90, 90, 3), 255, np.uint8)
    with av.open(str(path), "w") as container:
        streams = {}
        for kind in ("cover", "video") if cover_first else ("video", "cover"):
            codec = "mjpeg" if kind == "cover" else "libx264"
            stream = streams[kind] = container.add_stream(codec, rate=24)
            stream.height, stream.width = (90, 90) if kind == "cover" else (HEIGHT, WIDTH)
            stream.pix_fmt = "yuvj420p" if kind == "cover" else "yuv420p"
        streams["cover"].disposition = Disposition.attached_pic
        for kind, images in (("cover", [cover]), ("video", map(frame_pixels, range(3)))):
            for pixels in images:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(streams[kind].encode(frame))
            container.mux(streams[kind].encode(None))
    result = predict(path, tmp_path / "out", masks=True)
    assert result.frames == 3
    assert read_mask(tmp_path / "out" / "clip_masks" / "000001.png").shape == (HEIGHT, WIDTH)


def test_sound_with_a_cover_image_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound, cover = container.add_stream("aac", rate=16000), container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 16000
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for stream, frame in ((sound, samples), (cover, image)):
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with pytest.raises(InputError, match="contains no video stream, only an image: give a video"):
        predict(path, tmp_path / "out")


@pytest.mark.parametrize("size", [(33, 47), (2, 2), (120, 300)])
def test_videos_of_any_size_are_written(
    size: tuple[int, int], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    result = predict(make_video(size=size), tmp_path / "out", masks=True)
    assert result.frames == FRAMES
    (shown, *_), _ = frames_of(result.overlay)
    assert all(side % 2 == 0 for side in shown.shape[:2])
    assert read_mask(tmp_path / "out" / "clip_masks" / "000001.png").shape == size


def test_the_readable_frames_of_a_truncated_video_are_written(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video(options={"movflags": "faststart"}, times=list(range(60)), noise=20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    result = predict(path, tmp_path / "out", masks=True)
    assert 0 < result.frames < 60
    assert result.faults
    assert str(path) in result.faults[0]
    assert len(frames_of(result.overlay)[0]) == result.frames
    assert len(list((tmp_path / "out" / "clip_masks").iterdir())) == result.frames


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: b"", "is not a video that can be read"),
        (lambda data: b"a text\n" * 99, "is not a video that can be read"),
        (lambda data: data[: len(data) // 2], "is not a video that can be read"),
    ],
)
def test_a_file_that_is_not_a_video_is_refused_and_leaves_nothing(
    content: Callable[[bytes], bytes], message: str, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video()
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(InputError, match=message) as error:
        predict(path, tmp_path / "out", masks=True)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_signal_leaves_nothing_of_the_video(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    class Stopping(Brightness):
        def predict_labels(self, image: np.ndarray) -> np.ndarray:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().predict_labels(image)

    out = tmp_path / "out"
    with pytest.raises(StoppedError, match="no results of this video are kept") as stopped:
        predict(make_video(), out, Stopping(), masks=True)
    assert stopped.value.exit_code == 143
    assert list(out.iterdir()) == []


def test_without_pyav_the_error_names_the_package(
    make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'av>=14'"):
        predict(path, tmp_path / "out")


def test_videos_do_not_replace_each_other_or_themselves(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    assert base_names([Path("a.mp4"), Path("a.mov"), Path("b.mp4")]) == ["a.mp4", "a.mov", "b"]
    path = make_video("x_overlay.mp4")
    before = path.read_bytes()
    with pytest.raises(InputError, match="replaced by its own result"):
        predict(path, tmp_path, name="x")
    assert path.read_bytes() == before


def test_two_videos_of_one_name_are_refused(tmp_path: Path, cli: Callable[..., Any]) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(b"")
    result = cli("predict", "b.safetensors", "a/x.mp4", "b/x.mp4")
    assert result.code == 2
    assert "b/x.mp4: its results would have the same names as those of a/x.mp4" in result.err


def test_the_command_accepts_videos_and_images(
    make_video: Callable[..., Path], tmp_path: Path, tiny_bundle: Path, cli: Callable[..., Any]
) -> None:
    make_video()
    (tmp_path / "bad.mkv").write_bytes(b"")
    Image.fromarray(frame_pixels(0)).save(tmp_path / "photo.png")
    result = cli("predict", tiny_bundle, "clip.mp4", "photo.png", "bad.mkv", "--frame-masks")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("pixelwise: error: bad.mkv: is not a video that can be read")
    assert result.out.splitlines() == [
        "1 masks and overlays written to predictions (runtime torch)",
        "12 frames written to predictions/clip_overlay.mp4 and predictions/clip_masks",
    ]
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert names == ["clip_masks", "clip_overlay.mp4", "photo.png", "photo_overlay.png"]


def test_a_runtime_is_chosen_for_the_size_of_the_frames(
    make_video: Callable[..., Path],
    exported: Path,
    tmp_path: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    Image.new("RGB", (300, 400)).save(tmp_path / "photo.png")  # there are more frames than images
    assert cli("predict", exported, make_video(), "photo.png", "--out", "out").code == 0
    (record,) = json.loads((tmp_path / "cache" / "runtimes.json").read_text()).values()
    assert record["size"] == [HEIGHT, WIDTH]
    assert frame_size(tmp_path / "damaged.mp4") is None
