"""Predicting videos: every frame is segmented, and the result is a video with overlays.

PyAV (FFmpeg), an optional dependency, decodes and encodes. Sound is not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import Classes
from pixelwise.errors import InputError, needs_package
from pixelwise.file_io import flush_tree, write_errors
from pixelwise.inference import overlay
from pixelwise.inference.answer_options import AnswerOptions
from pixelwise.inference.batch.folder_journal import FileStamp, Journal
from pixelwise.inference.batch.image_work import (
    Place,
    clean,
    encode,
    find_answer,
    predict_pixels,
    work_size,
)
from pixelwise.inference.batch.pipeline import overlapped
from pixelwise.inference.batch.result_mark import mark_png
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import Segmentation
from pixelwise.interrupts import Interrupts, StoppedError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm"}
)
ENCODER = "libx264"
MAX_RATIO = 65535  # H.264 stores the pixel aspect ratio in twice 16 bits
_Answer = dict[str, Any] | None  # of one frame, from `find_answer`
QUALITY = {"crf": "18", "preset": "veryfast"}  # x264: 18 is visually close to lossless


@dataclass
class VideoResult:
    """The outcome of predicting a video.

    Args:
        overlay: The video with overlays.
        masks: The folder of the masks, if requested.
        frames: The number of frames in the results.
        rows: The rows of the frames in the table of areas, if there is one.
        flagged: The number of frames that are unlike the data of a calibrated network.
        notes: Remarks for the user, one line each.
        faults: Why the results lack frames of a damaged or truncated video, one line each.
    """

    overlay: Path
    masks: Path | None
    frames: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    flagged: int = 0
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add_frame(self, path: Path, number: int, answer: _Answer) -> None:
        self.frames += 1
        if answer is not None:
            about = {"image": str(path), "frame": number}
            self.rows += [about | row for row in answer["rows"]]
            self.flagged += bool(answer["flagged"])


def check_video_options(options: AnswerOptions) -> None:
    """Raise InputError for answers that are not available for videos."""
    if options.to is not None or options.probabilities or options.confidence:
        raise InputError(
            "annotations and rasters of probabilities are written for images, not for videos: omit "
            "them, or give the frames as images"
        )


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def predict_video(
    predictor: Predictor,
    path: Path,
    out: Path = Path("predictions"),
    *,
    name: str | None = None,
    masks: bool = False,
    answers: AnswerOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VideoResult:
    """Write OUT/NAME_overlay.mp4 and, on request, OUT/NAME_masks/000001.png, ... for a video.

    The overlay is an H.264 video without sound. It has the frames of the original, upright, at the
    same times and with the same pixel aspect ratio, and a legend below them. Only a few frames are
    in memory at a time. Results appear under their final names when they are complete: with every
    frame that could be decoded. An interrupted video is not resumed.

    Args:
        predictor: Predicts the masks.
        path: The video. Of several video streams, FFmpeg's choice is predicted.
        out: The folder for the results. Earlier results of the same name are replaced.
        name: The base name of the results; the video's stem by default.
        masks: Whether to write a mask for each frame.
        answers: Whether the areas of each frame are measured, and how masks are cleaned. The
            caller writes the table.
        overwrite: Whether to replace files that prediction did not write.
        progress: Called with the number of finished frames and the number of all frames, which is
            0 if the video does not declare it.

    Raises:
        InputError: If PyAV is not installed, the video cannot be read, or the results cannot be
            written or would replace files that prediction did not write, or the options ask for
            polygons or rasters.
        StoppedError: After Ctrl-C or SIGTERM; no files are left.
    """
    require_av(path)
    options = answers or AnswerOptions()
    check_video_options(options)
    options.check_classes(predictor.classes)
    area = None if options.pixel_size is None else options.pixel_size**2
    place = Place(None, area, options.min_pixels(area))
    name = path.stem if name is None else name
    result = VideoResult(out / f"{name}_overlay.mp4", out / f"{name}_masks" if masks else None)
    if result.overlay.exists() and result.overlay.samefile(path):
        raise InputError(f"{path}: would be replaced by its own result: choose another --out")
    with ExitStack() as stack:
        reader = stack.enter_context(closing(_VideoReader(path, result)))
        first = reader.first_frame()
        stack.enter_context(write_errors(out))
        results = stack.enter_context(_Results(out, result, overwrite=overwrite))
        interrupts = stack.enter_context(Interrupts())
        with closing(_VideoWriter(results.overlay, reader, first, predictor.classes)) as writer:

            def finish(frame: _Frame, segmentation: Segmentation) -> tuple[Image.Image, _Answer]:
                segmentation = clean(segmentation, options, place)
                if results.masks is not None:
                    (mask,) = encode(segmentation, options, overlay=False)
                    (results.masks / f"{frame.number:06d}.png").write_bytes(mark_png(mask))
                answer = find_answer(segmentation, options, place)
                return segmentation.overlay(legend=False), answer

            steps = overlapped(
                chain([first], reader.frames),
                prepare=lambda frame: predictor.prepare(frame.pixels),
                work=partial(predict_pixels, predictor, options, concurrently=True),
                finish=finish,
                size=partial(work_size, predictor, options),
                stop=lambda: interrupts.requested is not None,
                concurrency=1 if options.needs_probabilities else predictor.concurrency,
            )
            with closing(steps):
                for done in steps:
                    if done.fault is not None:
                        raise done.fault
                    assert done.result is not None
                    image, answer = done.result
                    writer.write(image, done.item.time)
                    result.add_frame(path, done.item.number, answer)
                    if progress is not None:
                        progress(result.frames, reader.expected)
        if interrupts.requested is not None:
            raise StoppedError(
                f"{path}: stopped at frame {result.frames}: no results of this video are kept",
                signal_number=interrupts.requested,
            )
        results.keep(path, reader.stamp)
    if reader.expected_exactly and result.frames < reader.expected and not result.faults:
        result.faults.append(
            f"{path}: is truncated: the {result.frames} of {reader.expected} frames that could be "
            f"read are in {result.overlay}"
        )
    return result


class _Results:
    """The results of a video: under temporary names until they are complete.

    Args:
        out: Their folder.
        result: Their final paths.
        overwrite: Whether to replace files that prediction did not write.

    Attributes:
        overlay: Temporary path of the overlay.
        masks: Temporary folder of the masks, if requested.
    """

    def __init__(self, out: Path, result: VideoResult, *, overwrite: bool) -> None:
        self.result = result
        self.journal = Journal(out, {"video": True}, overwrite=overwrite)

    def __enter__(self) -> _Results:
        with ExitStack() as stack:
            journal = stack.enter_context(self.journal)
            self.resumable = journal.path.exists()  # the journal of images, which must stay
            masks = self.result.masks
            self.earlier = [] if masks is None else [f"{masks.name}/{f}" for f in _names(masks)]
            journal.check([self.result.overlay.name, *self.earlier])
            self.overlay = journal.reserve()
            self.masks = None if masks is None else journal.reserve()
            if self.masks is not None:
                self.masks.mkdir()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if not self.resumable:
                self.journal.finish()
        finally:
            self._stack.close()

    def keep(self, path: Path, stamp: FileStamp) -> None:
        """Give the results their final names, and remove masks of an earlier run."""
        staged = {self.result.overlay.name: self.overlay}
        if self.masks is not None and self.result.masks is not None:
            flush_tree(self.masks)
            folder = self.result.masks.name
            staged |= {f"{folder}/{file}": self.masks / file for file in _names(self.masks)}
        self.journal.seal(self.overlay)
        self.journal.add(path, stamp, staged)
        self.journal.commit()
        for name in self.earlier:
            if name not in staged and not self.journal.is_of_others(name):
                (self.journal.out / name).unlink()


def _names(folder: Path) -> list[str]:
    """Return the names of the masks in a folder."""
    return sorted(file.name for file in folder.glob("*.png"))


def frame_size(path: Path) -> tuple[int, int] | None:
    """Return the height and width of a video's first frame, upright; None if it cannot be read."""
    with suppress(InputError), closing(_VideoReader(path, VideoResult(path, None))) as reader:
        height, width, _ = reader.first_frame().pixels.shape
        return height, width
    return None  # the fault is reported when the video is predicted


def require_av(path: Path) -> None:
    """Raise InputError if PyAV is not installed."""
    with needs_package(f"{path}: videos need PyAV, which is not installed: `pip install 'av>=14'`"):
        import av
    av.logging.set_level(None)  # errors are raised; other messages would clutter the output


@dataclass(frozen=True)
class _Frame:
    """A decoded frame.

    Args:
        number: Counts from 1.
        pixels: (H, W, 3) uint8, upright.
        time: Presentation time in units of the video's time base, from 0.
        transposed: Whether the rows of the video are the columns of `pixels`.
    """

    number: int
    pixels: NDArray[np.uint8]
    time: int
    transposed: bool


class _VideoReader:
    """Reads a video; the iterator `frames` ends at damage and adds it to the result's faults."""

    def __init__(self, path: Path, result: VideoResult) -> None:
        import av

        self.path, self.result = path, result
        self.container = _open(path)
        try:
            self.stamp = FileStamp.of(path)
            self.stream = _find_stream(self.container, path)
            self.aspect_ratio = self.stream.sample_aspect_ratio or None
            self.stream.thread_type = "AUTO"
            self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
            self.time_base = self.stream.time_base or 1 / self.rate
            self.expected_exactly = self.stream.frames > 0
            self.expected = self.stream.frames or _estimate(self.container, self.rate)
        except (InputError, av.FFmpegError):
            self.close()
            raise
        if self.container.streams.audio:
            result.notes.append(f"{path}: the sound is not copied")
        self.frames = self._read()

    def close(self) -> None:
        self.container.close()

    def first_frame(self) -> _Frame:
        """Read the first frame; raise InputError if there is none."""
        for frame in self.frames:
            return frame
        reason = [*self.result.faults, f"{self.path}: contains no frames"][0]
        raise InputError(f"{reason}: restore the file or remove it")

    def _read(self) -> Iterator[_Frame]:
        import av

        start: int | None = None
        number = 0
        damaged = 0
        try:
            for frame in self.container.decode(self.stream):
                number += 1
                damaged += frame.is_corrupt
                pixels: NDArray[Any] = frame.to_ndarray(format="rgb24")
                matrix: Any = frame.side_data.get("DISPLAYMATRIX")
                upright, transposed = _turn(pixels, None if matrix is None else bytes(matrix))
                if frame.pts is None:  # old AVI files have no timestamps, only a constant rate
                    time = round((number - 1) / self.rate / self.time_base)
                else:
                    start = frame.pts if start is None else start
                    time = frame.pts - start
                yield _Frame(number, np.ascontiguousarray(upright), time, transposed)
        except (av.FFmpegError, OSError) as error:
            self.result.faults.append(
                f"{self.path}: is damaged or truncated after frame {number} ({error.strerror})"
            )
        if damaged:
            self.result.faults.append(f"{self.path}: {damaged} frames are damaged")


class _VideoWriter:
    """Writes a video with a legend below every frame; raises OSError if it cannot be written.

    Args:
        path: The file.
        reader: The original, for its frame rate, time base and pixel aspect ratio.
        first: The first frame. Its size is padded to even numbers, which H.264 requires.
        classes: The classes for the legend.
    """

    def __init__(self, path: Path, reader: _VideoReader, first: _Frame, classes: Classes) -> None:
        import av

        height, width, _ = first.pixels.shape
        self.size = (width, height)
        entries = list(zip(classes.names, classes.colors, strict=True))
        self.legend = overlay.legend(entries, width=width)
        self.last = -1
        with _as_os_error():
            self.container = av.open(f"file:{path}", "w", format="mp4")
            stream = self.container.add_stream(ENCODER, rate=reader.rate, options=QUALITY)
        assert isinstance(stream, av.VideoStream)
        self.stream = stream
        self.stream.width = _even(max(width, self.legend.width))
        self.stream.height = _even(height + self.legend.height)
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = reader.time_base
        if reader.aspect_ratio is not None:
            ratio = 1 / reader.aspect_ratio if first.transposed else reader.aspect_ratio
            self.stream.codec_context.sample_aspect_ratio = ratio.limit_denominator(MAX_RATIO)
        self.time_base = reader.time_base

    def write(self, image: Image.Image, time: int) -> None:
        import av

        if image.size != self.size:  # some videos change their size
            image = image.resize(self.size)
        stacked = np.asarray(overlay.stack(image, self.legend))
        height, width, _ = stacked.shape
        missing = ((0, self.stream.height - height), (0, self.stream.width - width), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.pad(stacked, missing, mode="edge"), format="rgb24")
        self.last = max(time, self.last + 1)  # times in damaged videos may decrease
        frame.pts, frame.time_base = self.last, self.time_base
        with _as_os_error():
            self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        with _as_os_error(), self.container:
            self.container.mux(self.stream.encode(None))


def _turn(pixels: NDArray[np.uint8], matrix: bytes | None) -> tuple[NDArray[np.uint8], bool]:
    """Turn and mirror a frame as its display matrix says; return whether it was transposed.

    The matrix (ISO 14496-12, 6.2.2) maps (x, y) to (a x + c y, b x + d y). Only its signs matter.
    """
    if matrix is None:
        return pixels, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    transposed = abs(b) > abs(a)
    if transposed:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1], transposed


def _find_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that FFmpeg prefers; a cover image is none."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    videos = [each for each in container.streams.video if not each.disposition & still]
    if not videos:
        cover = ", only an image" if container.streams.video else ""
        raise InputError(f"{path}: contains no video stream{cover}: give a video")
    best = container.streams.best("video")
    return next((each for each in videos if best and each.index == best.index), videos[0])


def _even(side: int) -> int:
    return side + side % 2


def _open(path: Path) -> InputContainer:
    """Open a video; raise InputError if it cannot be read."""
    import av

    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a video: give a file")
    try:
        # Only as a file: a playlist could name network addresses, and is not a video.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist: check the path") from error
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path}: is not a video that can be read, or is truncated ({error.strerror}): convert "
            "or restore it"
        ) from error


def _estimate(container: InputContainer, rate: Fraction) -> int:
    """Estimate the number of frames from the duration; 0 if it is unknown."""
    import av

    return round(container.duration / av.time_base * rate) if container.duration else 0


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Convert FFmpeg's errors to OSError."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
