"""Find the prefixes and suffixes that distinguish the files of images from those of masks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations

MIN_MATCHED = 0.5
"""Fraction of the files of the smaller side that must have a partner."""

_SAMPLES = 3
_MAX_COMPARED = 2000
_MAX_CANDIDATES = 24
_MAX_KINDS = 16
"""Number of kinds of files in one folder."""
_MAX_CONSTANT = 8
"""Number of files in a folder that holds one image, with constant file names."""
_TELLING = 3
"""Number of characters that the names of a single pair of files must share."""
_SEPARATOR = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True, order=True)
class Affixes:
    """What stands before and after the varying part of file names.

    Attributes:
        prefix: Before it.
        suffix: After it, without the file type.
        type: The file type, such as ".png"; empty for any.
        constant: Whether `prefix` is the whole name, without the file type.
    """

    prefix: str = ""
    suffix: str = ""
    type: str = ""
    constant: bool = False

    def core(self, name: str) -> str | None:
        """The varying part of a file name; None if the name has other affixes."""
        stem, dot, file_type = name.rpartition(".")
        if self.type and f"{dot}{file_type}".lower() != self.type:
            return None
        if self.constant:
            return "" if stem == self.prefix else None
        if not (stem.startswith(self.prefix) and stem.endswith(self.suffix)):
            return None
        return stem[len(self.prefix) : len(stem) - len(self.suffix)] or None

    @property
    def length(self) -> int:
        """The number of constant characters."""
        return len(self.prefix) + len(self.suffix) + len(self.type)


Pair = tuple[Affixes, Affixes]


def cores(names: Iterable[str], own: Affixes, other: Affixes | None = None) -> dict[str, str]:
    """The file names with these affixes by their varying part.

    Args:
        names: File names.
        own: The affixes.
        other: The affixes of other files in the same folder; a name that has both belongs to the
            longer ones.
    """
    if other is not None and other.length <= own.length:
        other = None
    found = {}
    for name in names:
        core = own.core(name)
        if core is not None and (other is None or other.core(name) is None):
            found[core] = name
    return found


def between_folders(one: Sequence[str], other: Sequence[str]) -> list[Pair]:
    """Find the affixes under which the files of two folders map one to one.

    Args:
        one: File names in one kind of folder.
        other: File names in the other.

    Returns:
        The affixes that match all files if there are some, else those that match at least
        MIN_MATCHED of the smaller side.
    """
    stems = [sorted({name.rpartition(".")[0] for name in names}) for names in (one, other)]
    guesses: Counter[Pair] = Counter({(Affixes(), Affixes()): _SAMPLES + 1})
    for second in _spread(stems[1]):
        guesses.update(
            {pair for first in stems[0][:_MAX_COMPARED] for pair in _guess(first, second)}
        )
    likely = sorted(guesses, key=lambda pair: (-guesses[pair], pair[0].length + pair[1].length))
    matched: list[tuple[int, Pair]] = []
    perfect: list[Pair] = []
    for pair in likely[:_MAX_CANDIDATES]:
        sides = [cores([f"{s}." for s in stems[k]], pair[k]) for k in (0, 1)]
        shared = sides[0].keys() & sides[1].keys()
        count = len(shared)
        if count == 1 and not _is_telling(next(iter(shared)), pair):
            continue
        if count >= MIN_MATCHED * min(map(len, stems)) and count:
            matched.append((count, pair))
        if count == len(stems[0]) == len(stems[1]):
            perfect.append(pair)
    if perfect:
        return perfect[:1]
    return [pair for _, pair in sorted(matched, key=lambda each: -each[0])]


def _spread(items: list[str]) -> list[str]:
    step = max(1, len(items) // _SAMPLES)
    return items[::step][:_SAMPLES]


def _guess(one: str, other: str) -> list[Pair]:
    """The affixes of two names if they belong together."""
    guesses = []
    start = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        start += 1
    end = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        end += 1
    if start:
        kept = _whole_words(one[:start], one[start:], other[start:])
        if not _cuts_number(one[:kept], one[kept:], other[kept:]):
            guesses.append((Affixes("", one[kept:]), Affixes("", other[kept:])))
    if end:
        one_back, other_back = one[::-1], other[::-1]
        kept = _whole_words(one_back[:end], one_back[end:], other_back[end:])
        if not _cuts_number(one_back[:kept], one_back[kept:], other_back[kept:]):
            guesses.append((Affixes(one[: len(one) - kept]), Affixes(other[: len(other) - kept])))
    if start == end == 0:
        i, j, size = SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
        if size >= _TELLING:
            guesses.append(
                (Affixes(one[:i], one[i + size :]), Affixes(other[:j], other[j + size :]))
            )
    return guesses


def _cuts_number(core: str, rest: str, other_rest: str) -> bool:
    """Whether only numbers differ, as in the names of two images, or the cut is within a number."""
    cut = [text[:1].isdigit() for text in (rest, other_rest)]
    only_numbers = bool(rest and other_rest) and not re.search(r"[^\W\d_]", rest + other_rest)
    return only_numbers or all(cut) or (core[-1:].isdigit() and any(cut))


def _is_telling(core: str, pair: Pair) -> bool:
    """Whether a single pair of files belongs together by what its names share."""
    return core != "" and (not pair[0].length or not pair[1].length or len(core) >= _TELLING)


def _whole_words(common: str, rest: str, other_rest: str) -> int:
    """The length of a common beginning without the begun word and separators at its end."""
    if not (rest and other_rest):
        return len(common)
    kept = common
    if rest[0].isalnum() and other_rest[0].isalnum() and kept[-1:].isalnum():
        cut = [match.start() for match in _SEPARATOR.finditer(kept)]
        kept = kept[: cut[-1]] if cut else kept
    return len(re.sub(r"[^A-Za-z0-9]+$", "", kept)) or len(common)


def in_one_folder(names: Sequence[str]) -> list[Pair]:
    """Find the affixes of two kinds of files in one folder, such as `NAME_sat` and `NAME_mask`.

    A folder with a few files is also read as one image with constant names, such as `image.png` and
    `label.png`.
    """
    kinds: dict[Affixes, dict[str, str]] = defaultdict(dict)
    for name in names:
        stem, dot, file_type = name.rpartition(".")
        kinds[Affixes("", "", (dot + file_type).lower())][stem] = name
        cuts = [match.start() for match in _SEPARATOR.finditer(stem)]
        kinds[Affixes()][stem] = name
        for cut in cuts[-2:]:
            kinds[Affixes("", stem[cut:])][stem[:cut]] = name
        for cut in cuts[:2]:
            kinds[Affixes(stem[: cut + 1])][stem[cut + 1 :]] = name
    # The ending of a kind of files recurs; that of a single file, such as its number, does not.
    least = 1 if len(names) <= 3 else max(2, len(names) // _MAX_KINDS)
    frequent = sorted(
        (kind for kind, files in kinds.items() if len(files) >= least),
        key=lambda kind: (-len(kinds[kind]), kind.length),
    )[:_MAX_CANDIDATES]
    found: list[tuple[int, Pair, set[str]]] = []
    for one, other in combinations(sorted(frequent), 2):
        both = kinds[one].keys() & kinds[other].keys()
        few = len(both) < MIN_MATCHED * min(len(kinds[one]), len(kinds[other]))
        if few or bool(one.type) != bool(other.type):
            continue
        first, second = cores(names, one, other), cores(names, other, one)
        both = first.keys() & second.keys()
        enough = len(both) >= 2 or len(names) <= 3
        if both and enough and len(both) >= MIN_MATCHED * min(len(first), len(second)):
            covered = {first[core] for core in both} | {second[core] for core in both}
            if len(covered) == 2 * len(both):
                found.append((len(both), (one, other), covered))
    pairs = [
        pair
        for count, pair, covered in found
        if not any(more > count and covered <= larger for more, _, larger in found)
    ]
    if 2 <= len(names) <= _MAX_CONSTANT:
        stems = sorted({name.rpartition(".")[0] for name in names})
        constant = [Affixes(stem, constant=True) for stem in stems]
        pairs += list(combinations(constant, 2))
    return pairs
