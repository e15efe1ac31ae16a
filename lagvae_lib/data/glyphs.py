"""The stand-in for OMNIGLOT: letters of many alphabets from the DejaVu fonts, warped as if by several hands."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ORIGINAL = 105  # pixels a side, as OMNIGLOT's drawings
HANDS = 20
SEED = 20_19
ALPHABETS = {  # first and last code point of letters, each in the font's own coverage
    "Latin": (0x61, 0x7A),
    "Greek": (0x3B1, 0x3C9),
    "Cyrillic": (0x430, 0x44F),
    "Armenian": (0x561, 0x586),
    "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x627, 0x64A),
    "N'Ko": (0x7CA, 0x7EA),
    "Georgian": (0x10D0, 0x10F0),
    "Ogham": (0x1681, 0x169A),
    "Tifinagh": (0x2D30, 0x2D65),
    "Syllabics": (0x1401, 0x1450),
    "Braille": (0x2801, 0x2840),
}


@cache
def _font() -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 96)


@cache
def letters() -> tuple[str, ...]:
    """The letters of `ALPHABETS` that the font has."""
    from matplotlib import ft2font

    covered = ft2font.FT2Font(_font().path).get_charmap()
    return tuple(chr(c) for first, last in ALPHABETS.values() for c in range(first, last + 1) if c in covered)


def glyph_drawings(count: int, seed: int = SEED) -> np.ndarray:
    """Ink of `count` drawings, uint8 [count, 105, 105] of 0 and 1; the same for the same count and seed."""
    random = np.random.RandomState(seed)
    hands = random.randn(HANDS, 5)
    return np.stack([_drawing(random, hands[random.randint(HANDS)]) for _ in range(count)])


@cache
def _outline(letter: str) -> Image.Image:
    """The letter in the middle of the sheet."""
    sheet = Image.new("L", (ORIGINAL, ORIGINAL), 0)
    ImageDraw.Draw(sheet).text((ORIGINAL // 2, ORIGINAL // 2), letter, fill=255, font=_font(), anchor="mm")
    return sheet


def _drawing(random: np.random.RandomState, hand: np.ndarray) -> np.ndarray:
    """A letter under the hand's own slant, size and turn, and a little of this drawing's."""
    letter = letters()[random.randint(len(letters()))]
    slant, turn, wide, high, shift = 0.6 * hand + 0.6 * random.randn(5)
    angle = 0.12 * turn
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[np.exp(0.12 * wide), 0.15 * slant], [0.0, np.exp(0.12 * high)]])
    centre = np.full(2, ORIGINAL / 2)
    offset = centre - matrix @ (centre + 3 * shift)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    warped = _outline(letter).transform(
        (ORIGINAL, ORIGINAL), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return (np.asarray(warped) > 100).astype(np.uint8)
