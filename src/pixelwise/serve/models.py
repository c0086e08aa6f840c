"""The predictors of the service, by name. A bundle that is replaced on disk is loaded again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import InputError, PixelwiseError
from pixelwise.inference import InferenceOptions, Predictor

log = logging.getLogger("pixelwise.serve")

CHECK_SECONDS = 1.0
_Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class HostedModel:
    """A loaded predictor.

    Attributes:
        name: The name by which clients choose it.
        path: The bundle or export.
        predictor: The predictor.
        version: Counts how often the file was loaded, from 1.
    """

    name: str
    path: Path
    predictor: Predictor
    version: int


class ModelStore:
    """Hosted models by name, reloaded in the background when their files change.

    A request keeps the model with which it started. If a replaced file cannot be loaded, the
    previous model stays, and the reason is logged.

    Args:
        paths: Bundles and exports.
        options: How the networks are run.

    Raises:
        InputError: If a file cannot be loaded, or two have the same name.
    """

    def __init__(self, paths: Sequence[Path], options: InferenceOptions) -> None:
        self._options = options
        self._stamps: dict[str, _Stamp] = {}
        self._models: dict[str, HostedModel] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        for name, path in zip(model_names(paths), paths, strict=True):
            self._stamps[name] = _stamp(path)
            self._models[name] = HostedModel(name, path, self._load(path), 1)

    @property
    def models(self) -> list[HostedModel]:
        """All models, the default first."""
        return list(self._models.values())

    def get(self, name: str | None) -> HostedModel | None:
        """Return the model with this name, the first one for None, or None if there is none."""
        if name is None:
            return next(iter(self._models.values()))
        return self._models.get(name)

    def watch(self) -> None:
        """Start to watch the files in a background thread."""
        self._thread = threading.Thread(target=self._watch, name="pixelwise-reload", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _load(self, path: Path) -> Predictor:
        return Predictor.from_options(path, self._options)

    def _watch(self) -> None:
        changed: dict[str, _Stamp] = {}
        while not self._stop.wait(CHECK_SECONDS):
            for name, model in list(self._models.items()):
                stamp = _stamp(model.path)
                if stamp == self._stamps[name] or not stamp:
                    changed.pop(name, None)
                elif changed.get(name) != stamp:  # it may still be being written
                    changed[name] = stamp
                else:
                    self._stamps[name] = changed.pop(name)
                    self._reload(model)

    def _reload(self, model: HostedModel) -> None:
        try:
            predictor = self._load(model.path)
        except PixelwiseError as error:
            log.error("model not reloaded", extra={"model": model.name, "reason": str(error)})
            return
        version = model.version + 1
        self._models[model.name] = HostedModel(model.name, model.path, predictor, version)
        log.info("model reloaded", extra={"model": model.name, "version": version})


def model_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each bundle or export: that of its run if its own name is not unique.

    `runs/leaves/best.safetensors` is `leaves`.

    Raises:
        InputError: If two models would have the same name.
    """
    names = []
    for path in paths:
        full = path.resolve()
        stem = full.stem if full.suffix == ".safetensors" else full.name
        generic = stem.removesuffix("-openvino").removesuffix("-onnx") in {"best", "last"}
        names.append(full.parent.name if generic and full.parent.name else stem)
    for name, path in zip(names, paths, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{path}: two models are called {name!r}: rename one of the files")
    return names


def newest_bundle(runs: Path = Path("runs")) -> Path | None:
    """Return the bundle that was written last below `runs`, or None."""
    bundles = [path for path in runs.glob("*/best.safetensors") if path.is_file()]
    return max(bundles, key=lambda path: path.stat().st_mtime, default=None)


def _stamp(path: Path) -> _Stamp:
    """Name, size, time and inode of each file of a model; empty if one cannot be read."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    try:
        states = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in states)
