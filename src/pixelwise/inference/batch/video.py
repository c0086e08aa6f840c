"""Videos: every frame is segmented, and what comes out is a video again.

PyAV (FFmpeg) decodes and encodes; it is an extra. Sound is not carried over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.file_io import atomic, atomic_folder, make_folder
from pixelwise.inference import overlay
from pixelwise.inference.batch.pipeline import overlapped
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
QUALITY = {"crf": "18", "preset": "veryfast"}  # x264's scale: 18 can hardly be told from the source


@dataclass
class VideoResult:
    """What was made of a video. frames: how many; notes and faults: sentences for the person.

    faults: of a video that is damaged or cut off; what could be decoded is in the files.
    """

    overlay: Path
    masks: Path | None
    frames: int = 0
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_names(paths: Sequence[Path]) -> list[str]:
    """A base name for the results of each video: its stem, or its whole name where stems collide."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else path.name for path in paths]


def predict_video(
    predictor: Predictor,
    path: Path,
    out: Path,
    *,
    name: str | None = None,
    masks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VideoResult:
    """Write OUT/NAME_overlay.mp4, and with `masks` OUT/NAME_masks/000001.png, ... a file a frame.

    The video has the frames, their times and the upright image of the given one, H.264 and no
    sound; the classes' colors stand below. Frames go through one at a time, so memory is that of a
    few. progress: told (done, total), total 0 where the video does not say.

    Files appear whole: with all that could be decoded, or, where that is nothing, not at all.
    Raises InputError where PyAV is missing, or the video cannot be read or the result written;
    StoppedError by Ctrl-C or SIGTERM, after which nothing is left.
    """
    require_av(path)
    name = path.stem if name is None else name
    result = VideoResult(out / f"{name}_overlay.mp4", out / f"{name}_masks" if masks else None)
    if result.overlay.exists() and result.overlay.samefile(path):
        raise InputError(f"{path}: would be replaced by its own result: choose another --out")
    with ExitStack() as stack:
        film = stack.enter_context(closing(_VideoReader(path, result)))
        first = next(film.frames, None)
        if first is None:
            reason = result.faults[0] if result.faults else f"{path}: holds no frames"
            raise InputError(f"{reason}: restore the file or remove it")
        make_folder(out)
        interrupts = stack.enter_context(Interrupts())
        frames = stack.enter_context(atomic_folder(result.masks)) if result.masks else None
        side = stack.enter_context(atomic(result.overlay))
        size = (first.pixels.shape[1], first.pixels.shape[0])
        writer = stack.enter_context(closing(_Writer(side, film, predictor.classes, size=size)))

        def finish(frame: _Frame, done: Segmentation) -> Image.Image:
            if frames is not None:
                (mask,) = done.encoded(overlay=False)
                (frames / f"{frame.number:06d}.png").write_bytes(mask)
            return done.overlay(legend=False)

        steps = overlapped(
            _chain(first, film.frames),
            prepare=lambda frame: predictor.prepare(frame.pixels),
            work=predictor.segment_concurrently,
            finish=finish,
            size=lambda pixels: pixels.nbytes,
            stop=lambda: interrupts.requested is not None,
            concurrency=predictor.concurrency,
        )
        with closing(steps):
            for done in steps:
                if done.fault is not None:
                    raise done.fault
                assert done.result is not None
                writer.write(done.result, done.item.time)
                result.frames += 1
                if progress is not None:
                    progress(result.frames, film.expected)
        if interrupts.requested is not None:
            raise StoppedError(
                f"{path}: stopped at frame {result.frames}; nothing of this video is kept",
                signal_number=interrupts.requested,
            )
    if film.expected_exactly and result.frames < film.expected and not result.faults:
        result.faults.append(
            f"{path}: is cut off: {result.frames} of {film.expected} frames could be read, which "
            f"are in {result.overlay}"
        )
    return result


def require_av(path: Path) -> None:
    """Raise InputError where PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"{path}: videos need PyAV, which is not installed: `pip install 'av>=14'`"
        ) from error
    av.logging.set_level(None)  # what matters is raised; the rest would be lines amid ours


@dataclass(frozen=True)
class _Frame:
    """number: from 1. pixels: (H, W, 3) uint8, upright. time: in the video's time base, from 0."""

    number: int
    pixels: NDArray[np.uint8]
    time: int


class _VideoReader:
    """A video that is read. `frames` gives them one after the other and ends at what is damaged,
    which then stands in the result's faults."""

    def __init__(self, path: Path, result: VideoResult) -> None:
        import av

        self.path, self.result = path, result
        self.container = _open(path)
        try:
            if not self.container.streams.video:
                raise InputError(f"{path}: holds no video: give a video")
            self.stream: VideoStream = self.container.streams.video[0]
            self.stream.thread_type = "AUTO"
            self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
            self.time_base = self.stream.time_base or 1 / self.rate
            self.expected_exactly = self.stream.frames > 0
            self.expected = self.stream.frames or _estimate(self.container, self.rate)
        except (InputError, av.FFmpegError):
            self.close()
            raise
        if self.container.streams.audio:
            result.notes.append(f"{path}: its sound is left out")
        self.frames = self._read()

    def close(self) -> None:
        self.container.close()

    def _read(self) -> Iterator[_Frame]:
        import av

        start: int | None = None
        number = 0
        damaged = 0
        try:
            for frame in self.container.decode(self.stream):
                number += 1
                damaged += frame.is_corrupt
                pixels = frame.to_ndarray(format="rgb24")
                turned = np.rot90(pixels, frame.rotation // 90 % 4)  # both counterclockwise
                if frame.pts is None:  # old AVI files: a steady rate is all there is
                    time = round((number - 1) / self.rate / self.time_base)
                else:
                    start = frame.pts if start is None else start
                    time = frame.pts - start
                yield _Frame(number, np.ascontiguousarray(turned), time)
        except (av.FFmpegError, OSError) as error:
            self.result.faults.append(
                f"{self.path}: is damaged or cut off after frame {number} ({error.strerror})"
            )
        if damaged:
            self.result.faults.append(f"{self.path}: {damaged} of its frames are damaged")


class _Writer:
    """A video that is written, with a legend below every frame. Raises OSError where it cannot be.

    size: (width, height) of the images; in the video both become even, as H.264 has them.
    """

    def __init__(
        self, path: Path, film: _VideoReader, classes: Classes, *, size: tuple[int, int]
    ) -> None:
        import av

        self.size = size
        entries = list(zip(classes.names, classes.colors, strict=True))
        self.legend = overlay.legend(entries, width=size[0])
        self.last = -1
        with _as_os_error():
            self.container = av.open(f"file:{path}", "w", format="mp4")
            stream = self.container.add_stream(ENCODER, rate=film.rate, options=QUALITY)
        assert isinstance(stream, av.VideoStream)
        self.stream = stream
        self.stream.width = _even(max(size[0], self.legend.width))
        self.stream.height = _even(size[1] + self.legend.height)
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = film.time_base
        self.time_base = film.time_base

    def write(self, image: Image.Image, time: int) -> None:
        import av

        if image.size != self.size:  # some videos change their size on the way
            image = image.resize(self.size)
        whole = np.asarray(overlay.below(image, self.legend))
        height, width, _ = whole.shape
        missing = ((0, self.stream.height - height), (0, self.stream.width - width), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.pad(whole, missing, mode="edge"), format="rgb24")
        self.last = max(time, self.last + 1)  # damaged videos go back in time
        frame.pts, frame.time_base = self.last, self.time_base
        with _as_os_error():
            self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        with _as_os_error(), self.container:
            self.container.mux(self.stream.encode(None))


def _chain(first: _Frame, rest: Iterator[_Frame]) -> Iterator[_Frame]:
    yield first
    yield from rest


def _even(side: int) -> int:
    return side + side % 2


def _open(path: Path) -> InputContainer:
    """Raises InputError where the file is no video."""
    import av

    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a video: give a file")
    try:
        # As a file and nothing else: a playlist could name addresses, and is no video.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there: check the path") from error
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path}: is not a video that can be read, or is cut off ({error.strerror}): convert it "
            "or restore it"
        ) from error


def _estimate(container: InputContainer, rate: Fraction) -> int:
    """How many frames there may be, 0 where nothing tells."""
    import av

    return round(container.duration / av.time_base * rate) if container.duration else 0


@contextmanager
def _as_os_error() -> Iterator[None]:
    """FFmpeg's errors of writing as the system's, which `atomic` understands."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
