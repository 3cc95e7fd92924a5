"""The picture of the house: packages and modules as floors, drawn from the imports that the sources have.

    python -m tools.house > house.svg

A module stands above all modules that it imports. Folders inside a package are one box each.
"""

import ast
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("faultsim", "energy", "neuralfuse")
COMMAND_LINE = "faultsim.cli"
WIDTH, HEIGHT, GAP = 8, 26, 8  # of a letter, of a box, between boxes
STYLE = """
text { font: 13px ui-monospace, monospace; fill: #1f2933 }
.title { font: bold 15px sans-serif }
.note { font: 13px sans-serif; fill: #52606d }
.package { fill: #f5f7fa; stroke: #9aa5b1 }
.module { fill: #d9e8f6; stroke: #7b8794 }
.folder { fill: #fdeac2; stroke: #7b8794 }
.kernel { fill: #dcf0dc; stroke: #7b8794 }
.arrow { stroke: #52606d; stroke-width: 1.5; fill: none; marker-end: url(#head) }
"""


def room_of(path: Path) -> str:
    """Name the box of a file: its module, or its folder where that lies inside a package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1] != "__init__" else parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Find the boxes that a file imports from, now or later; imports for type checkers do not count."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(_without_typing(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = (*base, *(node.module.split(".") if node.module else ()))
            found |= {(*source, alias.name) for alias in node.names}
    rooms = set()
    for name in found:
        if name[0] in PACKAGES:
            place = ROOT.joinpath(*name[:2])
            is_room = place.is_dir() or place.with_suffix(".py").is_file()
            rooms.add(".".join(name[:2]) if is_room else name[0])
    return rooms


def _without_typing(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    return tree


def read_rooms() -> dict[str, set[str]]:
    """Read all sources: each box, and the boxes that it imports from."""
    arrows: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            room = room_of(path)
            arrows.setdefault(room, set()).update(imported_rooms(path) - {room})
    return {room: targets & arrows.keys() for room, targets in arrows.items()}


def floors_of(rooms: set[str], arrows: dict[str, set[str]]) -> list[list[str]]:
    """Sort boxes into floors, the lowest first: each above what it imports, circles on one floor."""
    reached = {room: _reach(room, rooms, arrows) for room in rooms}
    level: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in level:
            below = {other for other in reached[room] if room not in reached[other]}
            level[room] = 1 + max((height(other) for other in below), default=-1)
        return level[room]

    floors: list[list[str]] = [[] for _ in range(1 + max(map(height, sorted(rooms))))]
    for room in sorted(rooms):
        floors[level[room]].append(room)
    return floors


def _reach(room: str, rooms: set[str], arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    rest = [room]
    while rest:
        new = (arrows[rest.pop()] & rooms) - seen
        seen |= new
        rest += new
    return seen


class Drawing:
    """SVG, from the top down."""

    def __init__(self, width: int) -> None:
        self.width, self.y, self.parts = width, 10, []

    def box(self, x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> None:
        """Draw a box with a hint that the browser shows on hover."""
        title = f"<title>{escape(hint)}</title>" if hint else ""
        self.parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="5">{title}</rect>'
        )

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Write a line."""
        self.parts.append(f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>')

    def package(self, title: str, note: str, floors: list[list[str]], hints: dict[str, str]) -> None:
        """Draw a package: the highest floor on top."""
        start = self.y
        at = len(self.parts)
        self.y += 24
        self.text(22, self.y, title, "title")
        self.text(22 + 10 * len(title) + 16, self.y, note, "note")
        self.y += 12
        for floor in reversed(floors):
            x = 22.0
            for room in floor:
                name = room.partition(".")[2] or room
                kind = "folder" if (ROOT / room.replace(".", "/")).is_dir() else "module"
                if room.startswith("csrc."):
                    kind = "kernel"
                name += "/" if kind == "folder" else ""
                width = WIDTH * len(name) + 16
                if x + width > self.width - 22:
                    x, self.y = 22.0, self.y + HEIGHT + 4
                self.box(x, self.y, width, HEIGHT, kind, hints.get(room, ""))
                self.text(x + 8, self.y + 17.5, name)
                x += width + GAP
            self.y += HEIGHT + GAP + 4
        self.parts.insert(at, f'<rect class="package" x="10" y="{start}" width="{self.width - 20}" '
                              f'height="{self.y - start}" rx="8"/>')  # fmt: skip
        self.y += 8

    def arrow(self, label: str) -> None:
        """Draw an arrow to what stands below."""
        x = self.width / 2
        self.parts.append(f'<path class="arrow" d="M{x} {self.y} V{self.y + 22}"/>')
        self.text(x + 12, self.y + 16, label, "note")
        self.y += 30

    def svg(self) -> str:
        """Give the file's text."""
        head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.y}" width="{self.width}" '
            f'height="{self.y}" role="img" aria-label="Packages and modules, each above what it imports">',
            f"<style>{STYLE}</style>",
            f'<defs>{head}<path d="M0 0 L8 4 L0 8 z" fill="#52606d"/></marker></defs>',
            f'<rect width="{self.width}" height="{self.y}" fill="white"/>',
            *self.parts,
            "</svg>\n",
        ])  # fmt: skip


def hints() -> dict[str, str]:
    """The first line of each box's docstring."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).iterdir():
            file = path / "__init__.py" if path.is_dir() else path
            if file.suffix == ".py" and file.is_file():
                docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
                found[room_of(file)] = docstring.partition("\n\n")[0]
    return found


def draw() -> str:
    """Draw the house as SVG."""
    arrows, said = read_rooms(), hints()
    drawing = Drawing(980)

    def floors(package: str, *left_out: str) -> list[list[str]]:
        rooms = {room for room in arrows if room.partition(".")[0] == package} - {package, *left_out}
        return floors_of(rooms, arrows)

    def uses(package: str) -> str:
        of_package = {room for room in arrows if room.partition(".")[0] == package} - {
            COMMAND_LINE,
            "faultsim.__main__",
        }
        others = {target.partition(".")[0] for room in of_package for target in arrows[room]} - {package}
        return f"imports {' and '.join(sorted(others))}" if others else "imports no other package"

    drawing.package("faultsim/cli", "a command parses, calls the library, prints; imports everything",
                    [[COMMAND_LINE]], said)  # fmt: skip
    drawing.arrow("")
    drawing.package("neuralfuse", uses("neuralfuse"), floors("neuralfuse"), said)
    drawing.arrow("")
    drawing.package("faultsim", uses("faultsim"), floors("faultsim", COMMAND_LINE, "faultsim.__main__"), said)
    drawing.arrow("kernel/ loads the compiled one")
    kernel = sorted(path.relative_to(ROOT / "csrc") for path in (ROOT / "csrc").rglob("*") if path.is_file())
    drawing.package("csrc", "the fault kernel, C++17 and CUDA", [[f"csrc.{path}" for path in kernel]], said)
    drawing.package("energy", uses("energy"), floors("energy"), said)
    return drawing.svg()


if __name__ == "__main__":
    sys.stdout.write(draw())
