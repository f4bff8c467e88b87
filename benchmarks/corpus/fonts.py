"""Faces of permissively licensed font packages, chosen by rule before any model saw them.

The rule: every family of ``wheels.toml``; no hairline styles (Thin, ExtraLight), which vanish
when an image is scaled down; variable fonts at weights 400 and 700; and only faces that have a
glyph of their own for each character of the alphabet.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import ImageFont

from benchmarks.corpus.packages import fetch_wheel, pins, wheel

__all__ = ["ALPHABET", "Face", "family_faces", "load_families", "missing_glyphs"]

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789$.-"

_HAIRLINE = ("Thin", "ExtraLight")
_VARIABLE_WEIGHTS = (400, 700)
_NO_SUCH_CHARACTER = "\U0010ffff"


@dataclass(frozen=True)
class Face:
    """One style of a font family.

    Attributes:
        name: File stem, with ``@weight`` for a variable font.
        data: The TrueType or OpenType file.
        weight: Value of the weight axis; None for a static font.
    """

    name: str
    data: bytes
    weight: int | None = None

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """Open the face at ``size`` pixels per em, with the basic layout engine."""
        font = ImageFont.truetype(
            io.BytesIO(self.data), size, layout_engine=ImageFont.Layout.BASIC
        )
        if self.weight is not None:
            axes = font.get_variation_axes()
            font.set_variation_by_axes(
                [self.weight if a["name"] == b"Weight" else a["default"] for a in axes]
            )
        return font


def load_families() -> tuple[tuple[Face, ...], ...]:
    """Fetch the pinned font packages and return the usable faces of each family.

    Raises:
        CorpusUnavailableError: A package is not in the cache and cannot be downloaded.
        CorpusError: A package differs from its pin.
    """
    families = []
    for name in pins()["text"]["fonts"]:
        with zipfile.ZipFile(fetch_wheel(wheel(name))) as archive:
            files = {n: archive.read(n) for n in archive.namelist() if n.endswith("tf")}
        families.append(tuple(family_faces(files)))
    return tuple(families)


def family_faces(files: dict[str, bytes]) -> Iterable[Face]:
    """Yield the faces of a family that the rule of this module keeps, sorted by file name.

    Args:
        files: Content of each font file by name; ``[`` in a name marks a variable font.
    """
    for path in sorted(files):
        stem = PurePosixPath(path).stem
        if any(style in stem for style in _HAIRLINE):
            continue
        weights = _VARIABLE_WEIGHTS if "[" in stem else (None,)
        for weight in weights:
            name = stem if weight is None else f"{stem}@{weight}"
            face = Face(name, files[path], weight)
            if not missing_glyphs(face.font(32)):
                yield face


def missing_glyphs(font: ImageFont.FreeTypeFont, alphabet: str = ALPHABET) -> str:
    """Return the characters that a font draws as nothing or as its missing-glyph box."""
    box = bytes(font.getmask(_NO_SUCH_CHARACTER))
    masks = {character: bytes(font.getmask(character)) for character in alphabet}
    return "".join(c for c, mask in masks.items() if mask == box or not any(mask))
