"""The still pictures a toy kitchen is put together from: jars, a hand, mats, a counter.

Everything is drawn with numpy and Pillow. The jars are what makes the data set hard in the way
the paper describes: all share one silhouette, in any hue, and a noun is the fine pattern on the
label. Every pattern is a field cut at its own median, with ink and paper swapped on every other
jar, so that half of every label is ink and its mean tells nothing: whoever sees only a few blurred
pixels of a jar does not see its noun.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

__all__ = [
    "JAR_CORNER_PX",
    "JAR_HEIGHT_PX",
    "JAR_WIDTH_PX",
    "NOUNS",
    "Colour",
    "Sprite",
    "draw_counter",
    "draw_hand",
    "draw_jar",
    "draw_mat",
    "draw_shadow",
]

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

JAR_WIDTH_PX, JAR_HEIGHT_PX, JAR_CORNER_PX = 28.0, 34.0, 5.0
LABEL_PX = 24
LABEL_FINENESS = 2.0  # periods of a pattern in half a label

_SPRITE_SCALE = 2  # px of a sprite in one of the video, to be turned and shrunk without jags
_DRAW_SCALE = 4  # jars are drawn larger still, then reduced: Pillow's shapes have hard edges
_HAND_PIVOT_PX = (40.0, 40.0)


@dataclass(frozen=True, slots=True)
class Sprite:
    """A picture to paste anywhere: RGBA at `_SPRITE_SCALE`, and its pivot in px of the video."""

    image: Image.Image
    pivot_xy_px: tuple[float, float]

    def paste(self, onto: Image.Image, pose: Floats) -> None:
        """Paste it in place, turned and scaled about its pivot.

        Args:
            onto: RGB, changed in place.
            pose: (4,): where the pivot comes to lie, x and y in px; radians clockwise; scale.
        """
        cx, cy, angle, scale = pose.tolist()
        px, py = self.pivot_xy_px
        cos, sin = math.cos(angle), math.sin(angle)
        width, height = self.image.width / _SPRITE_SCALE, self.image.height / _SPRITE_SCALE
        corners = [(x - px, y - py) for x in (0.0, width) for y in (0.0, height)]
        xs = [cx + scale * (cos * x - sin * y) for x, y in corners]
        ys = [cy + scale * (sin * x + cos * y) for x, y in corners]
        left, right = max(0, math.floor(min(xs))), min(onto.width, math.ceil(max(xs)))
        top, bottom = max(0, math.floor(min(ys))), min(onto.height, math.ceil(max(ys)))
        if right <= left or bottom <= top:
            return
        # Pillow asks for the way back: from a pixel of the output to one of the sprite.
        a, b = cos / scale * _SPRITE_SCALE, sin / scale * _SPRITE_SCALE
        x, y = left - cx, top - cy
        x_back = (a, b, a * x + b * y + px * _SPRITE_SCALE)
        y_back = (-b, a, a * y - b * x + py * _SPRITE_SCALE)
        turned = self.image.transform(
            (right - left, bottom - top),
            Image.Transform.AFFINE,
            (*x_back, *y_back),
            Image.Resampling.BILINEAR,
        )
        onto.paste(turned, (left, top), turned)


def _chevrons(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.sin(2 * np.pi * (LABEL_FINENESS * v + np.abs(2 * u) % 1)))


def _angle(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.arctan2(v, u))


# Noun → field over the label; u and v run from -1 to 1.
_PATTERNS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "salt": lambda u, v: np.sin(2 * np.pi * LABEL_FINENESS * v),
    "pepper": lambda u, v: np.sin(2 * np.pi * LABEL_FINENESS * u),
    "cumin": lambda u, v: np.sin(1.6 * np.pi * u) * np.sin(1.6 * np.pi * v),
    "paprika": lambda u, v: np.cos(3.2 * np.pi * u) + np.cos(3.2 * np.pi * v),
    "basil": lambda u, v: np.sin(2 * np.pi * LABEL_FINENESS * np.hypot(u, v)),
    "mint": lambda u, v: np.sin(6 * _angle(u, v)),
    "clove": lambda u, v: np.sin(3 * _angle(u, v) + 2.6 * np.pi * np.hypot(u, v)),
    "ginger": _chevrons,
    "thyme": lambda u, v: -np.minimum(np.abs(u), np.abs(v)),
    "curry": lambda u, v: np.sin(2 * np.pi * LABEL_FINENESS * (np.abs(u) + np.abs(v)) / 1.4),
}
NOUNS = tuple(_PATTERNS)


def draw_jar(noun_class: int, hue_turns: float, *, inverted: bool) -> Sprite:
    """Draw a jar with a lid and its noun's label."""
    unit = _DRAW_SCALE
    width, height = round(JAR_WIDTH_PX) * unit, round(JAR_HEIGHT_PX) * unit
    corner = round(JAR_CORNER_PX) * unit
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    glass, rim = _hsv(hue_turns, 0.75, 0.85), _hsv(hue_turns, 0.75, 0.5)
    right, bottom = width - 1, height - 1
    draw.rounded_rectangle((0, 4 * unit, right, bottom), corner, fill=rim)
    body = (unit, 5 * unit, right - unit, bottom - unit)
    draw.rounded_rectangle(body, corner - unit, fill=glass)
    draw.rounded_rectangle((2 * unit, 0, right - 2 * unit, 6 * unit), 2 * unit, fill=rim)
    draw.rounded_rectangle((3 * unit, unit, right - 3 * unit, 4 * unit), unit, fill=glass)

    side = LABEL_PX * unit
    grid = (np.arange(side) + 0.5) / side * 2 - 1
    field = _PATTERNS[NOUNS[noun_class]](grid[None, :], grid[:, None])
    ink = (np.broadcast_to(field, (side, side)) > np.median(field)) != inverted
    colours = np.array([_hsv(hue_turns, 0.15, 0.97), _hsv(hue_turns, 0.85, 0.25)], np.uint8)
    image.paste(Image.fromarray(colours[ink.astype(np.intp)]), (2 * unit, 8 * unit))
    image = image.reduce(_DRAW_SCALE // _SPRITE_SCALE)
    return Sprite(image, (JAR_WIDTH_PX / 2, JAR_HEIGHT_PX / 2))


def draw_shadow() -> Sprite:
    """Draw the soft shadow under a jar."""
    width_px, height_px = 1.3 * JAR_WIDTH_PX, 10.0
    width, height = round(width_px * _SPRITE_SCALE), round(height_px * _SPRITE_SCALE)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., 3] = 110 * np.clip(1.0 - np.hypot(x, y), 0.0, 1.0)
    return Sprite(Image.fromarray(pixels), (width_px / 2, height_px / 2))


def draw_hand(skin: Colour, sleeve: Colour) -> tuple[Sprite, Sprite]:
    """Draw a right hand with its forearm, in two layers with one pivot.

    The forearm runs down from the hand; the pivot is the middle of what the hand holds.

    Returns:
        What lies behind the held object (arm, palm, fingers) and what lies before it (thumb).
    """
    unit = 2 * _SPRITE_SCALE
    behind = Image.new("RGBA", (84 * unit, 330 * unit), (0, 0, 0, 0))
    draw = ImageDraw.Draw(behind)
    dark = _shade(skin, 0.78)
    _polygon(draw, [(33, 62), (63, 62), (69, 120), (75, 330), (23, 330), (29, 120)], skin, unit)
    _polygon(draw, [(29, 118), (69, 118), (78, 330), (20, 330)], sleeve, unit)
    _polygon(draw, [(27, 116), (71, 116), (71, 126), (27, 126)], _shade(sleeve, 0.75), unit)
    draw.ellipse(_scaled((27, 44, 67, 88), unit), fill=skin)
    for x, y in ((52, 22), (56, 32), (57, 42), (56, 51)):  # fingertips, seen beside the object
        draw.rounded_rectangle(_scaled((x - 14, y - 5, x + 6, y + 5), unit), 5 * unit, fill=dark)
        draw.rounded_rectangle(_scaled((x - 13, y - 4, x + 5, y + 4), unit), 4 * unit, fill=skin)
    draw.ellipse(_scaled((36, 54, 66, 84), unit), fill=skin)

    before = Image.new("RGBA", (84 * unit, 84 * unit), (0, 0, 0, 0))
    draw = ImageDraw.Draw(before)
    for radius, colour in ((5, dark), (4, skin)):
        draw.line(_scaled((28, 66, 28, 52), unit), fill=colour, width=2 * radius * unit)
        draw.ellipse(_scaled((28 - radius, 52 - radius, 28 + radius, 52 + radius), unit), colour)
    draw.ellipse(_scaled((23, 60, 40, 78), unit), fill=skin)
    return Sprite(behind.reduce(2), _HAND_PIVOT_PX), Sprite(before.reduce(2), _HAND_PIVOT_PX)


def draw_counter(
    size_px: tuple[int, int],
    wall_height_px: int,
    colours: tuple[Colour, Colour, Colour],
    rng: np.random.Generator,
) -> Image.Image:
    """Draw a stone counter with boards and plates before a tiled wall; RGB.

    Args:
        size_px: (width, height) of the whole counter.
        wall_height_px: where the wall ends and the counter begins.
        colours: stone, wall and board.
        rng: grain, and where the boards and plates lie.
    """
    width, height = size_px
    stone, wall, board = colours
    grain = _noise(size_px, (width // 40, height // 3), rng) * 12
    grain += _noise(size_px, (width // 160, height // 40), rng) * 16
    light = np.linspace(-18, 14, height)[:, None]
    pixels = np.array(stone, np.float64) + (grain + light)[..., None]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x in range(int(rng.integers(0, 120)), width, 230):
        _lay_board_or_plate(draw, (x, wall_height_px), board, rng)
    draw.rectangle((0, 0, width, wall_height_px), fill=_shade(wall, 0.9))
    for row, top in enumerate(range(wall_height_px - 24, -25, -26)):
        for left in range(-50 + 25 * (row % 2), width, 50):
            tile = _shade(wall, float(rng.uniform(0.97, 1.03)))
            draw.rectangle((left, top, left + 47, top + 23), fill=tile)
    draw.rectangle((0, wall_height_px, width, wall_height_px + 5), fill=_shade(stone, 0.6))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def draw_mat(counter: Image.Image, centre_xy_px: tuple[float, float], noun_class: int) -> None:
    """Lay a mat in the colour a noun likes best."""
    x, y = centre_xy_px
    hue = noun_class / len(NOUNS)
    draw = ImageDraw.Draw(counter)
    draw.rounded_rectangle((x - 110, y - 50, x + 110, y + 56), 8, fill=_hsv(hue, 0.45, 0.6))
    draw.rounded_rectangle((x - 110, y - 52, x + 110, y + 52), 8, fill=_hsv(hue, 0.42, 0.8))
    draw.rounded_rectangle(
        (x - 100, y - 43, x + 100, y + 43), 6, outline=_hsv(hue, 0.2, 0.93), width=2
    )


def _lay_board_or_plate(
    draw: ImageDraw.ImageDraw,
    corner_px: tuple[int, int],
    board: Colour,
    rng: np.random.Generator,
) -> None:
    x = corner_px[0] + int(rng.integers(0, 60))
    y = corner_px[1] + int(rng.integers(20, 90))
    if rng.integers(2):
        draw.rounded_rectangle((x, y, x + 150, y + 85), 10, fill=_shade(board, 0.8))
        draw.rounded_rectangle((x, y, x + 150, y + 80), 10, fill=board)
    else:
        draw.ellipse((x, y, x + 110, y + 66), fill=(214, 214, 210))
        draw.ellipse((x + 3, y + 1, x + 107, y + 61), fill=(238, 238, 234))
        draw.ellipse((x + 20, y + 11, x + 90, y + 51), fill=(226, 226, 222))


def _noise(
    size_px: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Smooth noise in -1..1, (height, width)."""
    coarse = rng.uniform(-1, 1, (max(2, cells[1]), max(2, cells[0]))).astype(np.float32)
    image = Image.fromarray(coarse).resize(size_px, Image.Resampling.BICUBIC)
    return np.asarray(image, np.float64)


def _hsv(hue_turns: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue_turns, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def _scaled(box: tuple[float, float, float, float], unit: int) -> list[float]:
    return [value * unit for value in box]


def _polygon(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: Colour, unit: int
) -> None:
    draw.polygon([(x * unit, y * unit) for x, y in points], fill=colour)
