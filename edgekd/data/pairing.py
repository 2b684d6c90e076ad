"""Pairs image files with mask files by their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from edgekd.data.paired import SUFFIXES, Pair, images_below, require_folder
from edgekd.errors import DataError

LOSSY = frozenset({".jpg", ".jpeg"})  # files of images: no mask is read from them
BY_UNICODE = "pairs whose names differ in their Unicode normal form"  # a kind of repair


@dataclass(frozen=True)
class Pairing:
    """Pairs of one split, and the number of repairs by kind that made them."""

    pairs: list[Pair]
    repairs: dict[str, int] = field(default_factory=dict)


def pairs_by_name(
    image_folder: Path, mask_folder: Path, image_ending: str = "", mask_ending: str = "", has_endings: bool = False
) -> Pairing:
    """Pair the files of two folders (and their subfolders) by relative path, without the endings and the suffix.

    Names in different Unicode normal forms are paired, too: they look alike, and macOS writes another one than Linux.

    Args:
        image_folder: folder of the images.
        mask_folder: folder of the masks; it may be the same, or a subfolder.
        image_ending: what follows the common name, before the suffix.
        mask_ending: `_mask` for `0001_mask.png`.
        has_endings: whether the format has options for the endings, which messages then name.

    Raises:
        DataError: a folder is missing, holds no image, two files have one name, or a file has no partner.
    """
    require_folder(image_folder, "image folder")
    require_folder(mask_folder, "mask folder")
    if image_folder == mask_folder:
        if image_ending == mask_ending:
            raise DataError(f"images and masks share {image_folder}: set data.options.mask_ending, e.g. '_mask'")
        images, masks = _in_one_folder(image_folder, image_ending, mask_ending)
    else:
        images = _by_name(_without(image_folder, mask_folder), image_folder, image_ending)
        masks = _by_name(_without(mask_folder, image_folder), mask_folder, mask_ending)
    if not images:
        looked = f"*{image_ending}{{{','.join(sorted(SUFFIXES))}}}"
        raise DataError(f"empty split: no image in {image_folder}; looked for {looked}{_other_files(image_folder)}")
    aliases = _unicode_aliases(images, masks)
    masks = {aliases.get(name, name): path for name, path in masks.items()}
    ends = (mask_ending, image_ending)
    for have, partners, what, missing, folder, ending in (
        (images, masks, "image", "mask", mask_folder, mask_ending),
        (masks, images, "mask", "image", image_folder, image_ending),
    ):
        alone = [name for name in have if name not in partners]
        if alone:
            unused = [name for name in partners if name not in have]
            hint = _hint(alone[0], unused, what, ends, has_endings) or _other_files(folder)
            raise DataError(
                f"{len(alone)} of {len(have)} {what}s have no {missing}, the first is {have[alone[0]]}: "
                f"expected {folder / alone[0]}{ending}.*{hint}; add the {missing} or remove the {what}"
            )
    pairs = [Pair(name, images[name], masks[name]) for name in sorted(images)]
    return Pairing(pairs, {BY_UNICODE: len(aliases)} if aliases else {})


def _without(folder: Path, other: Path) -> list[Path]:
    """Return the image files below a folder, but those below another folder inside it: masks beside images."""
    inside = other != folder and other.is_relative_to(folder)
    return [path for path in images_below(folder) if not (inside and path.is_relative_to(other))]


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _by_name(paths: Sequence[Path], folder: Path, ending: str) -> dict[str, Path]:
    """Return name -> file of those whose name has the ending."""
    by_name: dict[str, Path] = {}
    for path in paths:
        if path.stem.endswith(ending):
            _add(by_name, _stem(path, folder).removesuffix(ending), path)
    return by_name


def _add(by_name: dict[str, Path], name: str, path: Path) -> None:
    if name in by_name:
        raise DataError(f"{path} and {by_name[name].name} have the same name; keep one")
    by_name[name] = path


def _in_one_folder(folder: Path, image_ending: str, mask_ending: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks of a folder, by name.

    A file with the masks' ending is a mask if the image that it would belong to is there. The longest names are paired
    first: of `face_mask.jpg` and `face_mask_mask.png`, the first is the image of the second.
    """
    files: dict[str, list[Path]] = {}
    for path in images_below(folder):
        files.setdefault(_stem(path, folder), []).append(path)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for stem in sorted(files, key=lambda one: (-len(one), one)):
        name = stem.removesuffix(mask_ending)
        if not stem.endswith(mask_ending) or not files[stem] or not files.get(name + image_ending):
            continue
        lossless = [path for path in files[stem] if path.suffix.lower() not in LOSSY] or files[stem]
        _add(masks, name, lossless[0])
        candidates = files[name + image_ending]
        images[name] = min(candidates, key=lambda path: path.suffix.lower() not in LOSSY)  # a JPEG is no mask
        files[stem].remove(masks[name])
        candidates.remove(images[name])
    for stem, left in files.items():
        for path in left:
            if stem.endswith(mask_ending) and len(mask_ending) >= len(image_ending):
                _add(masks, stem.removesuffix(mask_ending), path)
            elif stem.endswith(image_ending):
                _add(images, stem.removesuffix(image_ending), path)
            elif stem.endswith(mask_ending):
                _add(masks, stem.removesuffix(mask_ending), path)
    return images, masks


def _unicode_aliases(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, str]:
    """Return mask name -> image name of masks without an image that have one in another Unicode normal form."""
    forms = {unicodedata.normalize("NFC", name): name for name in images if name not in masks}
    named = {name: forms.get(unicodedata.normalize("NFC", name)) for name in masks if name not in images}
    return {name: image for name, image in named.items() if image is not None}


def _hint(alone: str, unused: Sequence[str], what: str, ends: tuple[str, str], has_endings: bool) -> str:
    """Return a hint from the names of the unpaired files of the other kind; "" when none is alike.

    Args:
        alone: the first name without a partner.
        unused: names of the other kind without a partner.
        what: the kind of `alone`: image or mask.
        ends: the endings of masks and of images that the names come without.
        has_endings: see `pairs_by_name`.
    """
    for found in unused:
        if found.casefold() == alone.casefold():
            return f"; {found!r} and {alone!r} differ in upper and lower case: rename one"
        if Path(found).name == Path(alone).name:
            return f"; {found!r} and {alone!r} lie in different subfolders: move one"
    longer = min((name for name in unused if _extends(name, alone)), key=len, default="")
    shorter = max((name for name in unused if _extends(alone, name)), key=len, default="")
    found = longer or shorter
    if not found:
        found = next(
            (name for name in unused if _extends(name[::-1], alone[::-1]) or _extends(alone[::-1], name[::-1])), ""
        )
        return f"; {found!r} has another beginning: rename the files" if found else ""
    if not has_endings:
        return f"; {found!r} has another ending: rename the files"
    is_mask = (what == "image") == bool(longer)  # whether the longer name is the mask's
    ending = (longer[len(alone) :] if longer else alone[len(shorter) :]) + ends[0 if is_mask else 1]
    return f"; set data.options.{'mask' if is_mask else 'image'}_ending: {ending!r} if {found!r} is its partner"


def _extends(longer: str, name: str) -> bool:
    """Whether a name begins with another, and goes on with something else than its number: `1_mask`, but not `12`, for `1`."""
    return longer.startswith(name) and not (longer[len(name) :][:1].isdigit() and name[-1:].isdigit())


def _other_files(folder: Path) -> str:
    """Return a hint at the files of a folder that are no image files; "" when there are none."""
    files = islice((path for path in folder.rglob("[!.]*") if path.suffix.lower() not in SUFFIXES), 1000)
    others = sorted(path for path in files if path.is_file())
    if any(path.suffix.lower() == ".npy" for path in others):
        return (
            f"; {folder} holds .npy arrays, which are not read: save each as PNG, "
            "`Image.fromarray(numpy.load(path).astype('uint8')).save(path[:-4] + '.png')`"
        )
    return f"; {folder} holds {others[0].name}, which is no image file" if others else ""
