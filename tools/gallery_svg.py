"""A small kit for pictures: shapes and text as SVG that reads well on light and on dark pages.

    shapes in the order of drawing ─ Picture ─ svg() ─► the same bytes for the same calls

Colours have names. Each is a pair, for light and for dark, and a picture has a background of its own, so that it stays
legible if a page's theme and the reader's preference differ.
"""

from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]

PALETTE = {
    "paper": ("#ffffff", "#0d1117"), "edge": ("#d0d7de", "#3d444d"), "ink": ("#1f2328", "#f0f6fc"),
    "muted": ("#59636e", "#9198a1"), "grid": ("#e6eaef", "#262c36"),
    "blue": ("#0969da", "#4493f8"), "pale-blue": ("#ddf4ff", "#12243d"),
    "orange": ("#bc4c00", "#f0883e"), "pale-orange": ("#fff1e5", "#33200f"),
    "green": ("#1a7f37", "#3fb950"), "pale-green": ("#dafbe1", "#11301c"),
    "grey": ("#8c959f", "#6e7681"), "pale-grey": ("#f0f3f6", "#1b222c"),
}  # fmt: skip
FONT = 'system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif'
HEAD = 7.0  # length of an arrow's head


def number(value: float) -> str:
    """Return a coordinate in at most one decimal."""
    return f"{round(value, 1):g}"


def points(pairs: Iterable[Point]) -> str:
    return " ".join(f"{number(x)},{number(y)}" for x, y in pairs)


def style_sheet() -> str:
    """Return the rules of all colours: `f-NAME` fills, `s-NAME` draws lines."""
    light, dark = (
        "".join(f".f-{name}{{fill:{pair[i]}}}.s-{name}{{stroke:{pair[i]}}}" for name, pair in PALETTE.items())
        for i in (0, 1)
    )
    return f"text{{font-family:{FONT}}}{light}@media (prefers-color-scheme:dark){{{dark}}}"


class Picture:
    """An SVG document that grows by one shape a call. Coordinates are pixels, from the upper left corner."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        """title, description: for readers who cannot see the picture."""
        self._size = (width, height)
        self._about = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
        self._shapes: list[str] = []
        self.box(0.5, 0.5, width - 1, height - 1, "paper", edge="edge", radius=8)

    def svg(self) -> str:
        """Return the document."""
        width, height = (number(side) for side in self._size)
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img">',
            self._about,
            f"<style>{style_sheet()}</style>",
            *self._shapes,
            "</svg>\n",
        ])  # fmt: skip

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, edge: str | None = None, radius: float = 0
    ) -> None:
        """Draw a rectangle; radius: of its corners."""
        classes = f"f-{fill}" + (f" s-{edge}" if edge else "")
        self._shapes.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
            f'rx="{number(radius)}" class="{classes}"/>'
        )

    def text(
        self, x: float, y: float, words: str, color: str = "ink", size: float = 13, anchor: str = "start",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """Write a line; y: of its base line. anchor: start, middle or end, which is at x."""
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}"{weight} '
            f'class="f-{color}">{escape(words)}</text>'
        )

    def line(self, path: Sequence[Point], color: str, width: float = 1.5, dashed: bool = False) -> None:
        """Draw a line through points."""
        dashes = ' stroke-dasharray="4 4"' if dashed else ""
        self._shapes.append(
            f'<polyline points="{points(path)}" fill="none" stroke-width="{number(width)}" '
            f'stroke-linejoin="round"{dashes} class="s-{color}"/>'
        )

    def area(self, path: Sequence[Point], color: str) -> None:
        """Fill a polygon."""
        self._shapes.append(f'<polygon points="{points(path)}" class="f-{color}"/>')

    def arrow(self, path: Sequence[Point], color: str = "muted") -> None:
        """Draw a line with a head at its last point, which it reaches horizontally or vertically."""
        (x0, y0), (x1, y1) = path[-2:]
        length = abs(x1 - x0) + abs(y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        base = (x1 - HEAD * dx, y1 - HEAD * dy)
        self.line([*path[:-1], base], color)
        half = HEAD / 2
        self.area(
            [(x1, y1), (base[0] - half * dy, base[1] + half * dx), (base[0] + half * dy, base[1] - half * dx)], color
        )


class Axes:
    """A frame of coordinates in a picture: values to pixels, with a grid and its labels."""

    def __init__(self, picture: Picture, area: tuple[float, float, float, float], limits: Point) -> None:
        """area: left, top, width and height in pixels. limits: the values at the right end and at the top."""
        self.picture = picture
        self.left, self.top, self.width, self.height = area
        self._limits = limits

    @property
    def bottom(self) -> float:
        """The pixel of the value 0."""
        return self.top + self.height

    def x(self, value: float) -> float:
        """Return the pixel of a value of the horizontal axis."""
        return self.left + self.width * value / self._limits[0]

    def y(self, value: float) -> float:
        """Return the pixel of a value of the vertical axis."""
        return self.bottom - self.height * value / self._limits[1]

    def grid_x(self, values: Iterable[float], unit: str = "") -> None:
        """Draw vertical grid lines, labelled below."""
        for value in values:
            self.picture.line([(self.x(value), self.top), (self.x(value), self.bottom)], "grid", 1)
            self.picture.text(self.x(value), self.bottom + 17, f"{value:g}{unit}", "muted", 11, "middle")

    def grid_y(self, values: Iterable[float], unit: str = "") -> None:
        """Draw horizontal grid lines, labelled at the left."""
        for value in values:
            self.picture.line([(self.left, self.y(value)), (self.left + self.width, self.y(value))], "grid", 1)
            self.picture.text(self.left - 7, self.y(value) + 4, f"{value:g}{unit}", "muted", 11, "end")
