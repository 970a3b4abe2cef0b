"""A figure as a file, and as markup for a page, where its title and its note are text of the page."""

import base64
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import markupsafe
from matplotlib.figure import Figure
from PIL import Image

from ssrob.reporting.figures.style import context

LARGEST_SVG = 150_000  # characters; a larger figure is kept as a bitmap where that is smaller
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
FONTS = "'DejaVu Sans', Verdana, 'Liberation Sans', Arial, sans-serif"
DROPPED = ("title", "note")  # ids of what the page says in its own text
_NUMBER = re.compile(r"(?<![\w#.])-?\d+\.\d{2,}")  # drawn at 72 per inch: a tenth is not seen
_REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')


@dataclass(frozen=True)
class Saved:
    """A figure's file; its title, its note, and where its panels begin and end, as shares of its height."""

    path: Path
    title: str
    note: str
    panels: tuple[float, float]

    def markup(self) -> str:
        """Return the panels as markup, so that a page needs no other file."""
        begin, end = self.panels
        title = markupsafe.escape(self.title)
        if self.path.suffix == ".svg":
            return _inline(self.path.read_text(encoding="utf-8"), self.path.stem.replace("_", "-"), title, self.panels)
        picture, whole = io.BytesIO(), Image.open(self.path)
        panels = whole.crop((0, round(begin * whole.height), whole.width, round(end * whole.height)))
        panels.save(picture, "png", optimize=True)
        return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">'


def save(figure: Figure, folder: Path, name: str) -> Saved:
    """Write a figure as SVG with the same bytes for the same figure, as a bitmap where it would be large."""
    folder.mkdir(parents=True, exist_ok=True)
    vector, bitmap = folder / f"{name}.svg", folder / f"{name}.png"
    vector.unlink(missing_ok=True)
    bitmap.unlink(missing_ok=True)
    with context(), io.StringIO() as text:
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine("none")  # the layout is settled; finding it again takes most of the time
        panels = _between_words(figure)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        small = compact(text.getvalue())
        vector.write_text(small, encoding="utf-8")
        if len(small) > LARGEST_SVG:
            figure.savefig(bitmap, metadata={"Software": None})
            _few_colours(bitmap)
    path = min((file for file in (vector, bitmap) if file.exists()), key=lambda file: file.stat().st_size)
    for file in {vector, bitmap} - {path}:
        file.unlink(missing_ok=True)
    title, note = (" ".join(text.split()) for text in (figure.get_suptitle(), figure.get_supxlabel()))
    return Saved(path, title, note, panels)


def _between_words(figure: Figure) -> tuple[float, float]:
    """Mark title and note, and return where the panels between them begin and end, as shares of the height."""
    ends = [0.0, 1.0]
    for text in figure.texts:
        place = text.get_window_extent().transformed(figure.transFigure.inverted())
        if text.get_text() == figure.get_suptitle():
            text.set_gid("title")
            ends[0] = 1 - place.y0
        elif text.get_text() == figure.get_supxlabel():
            text.set_gid("note")
            ends[1] = 1 - place.y1
    return ends[0], ends[1]


def _few_colours(bitmap: Path) -> None:
    """Rewrite a bitmap with 256 colours: a third of the size, and thin lines keep theirs."""
    few = Image.open(bitmap).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(bitmap, optimize=True)


def compact(text: str) -> str:
    """Leave out of an SVG by matplotlib what no reader sees: notes, unused ids, empty groups, needless digits."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text.replace(f' xmlns:xlink="{XLINK}"', "").replace("xlink:href", "href"))
    used = set(_REFERENCE.findall(text))
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for each in root.iter():
        _shorten(each, used)
    _unwrap(root)
    for name in ("clip-path", "style"):
        _gather(root, name)
    root.set("style", f"stroke-linejoin:round;stroke-linecap:butt;font-family:{FONTS}")
    return ElementTree.tostring(root, encoding="unicode")


def _shorten(each: ElementTree.Element, used: set[str]) -> None:
    if each.get("id") not in {*used, *DROPPED}:
        each.attrib.pop("id", None)
    if each.get("transform", "").startswith("rotate(-0 "):
        del each.attrib["transform"]
    for name, value in each.attrib.items():
        short = _NUMBER.sub(_rounded, value)
        if name == "style":
            short = re.sub(r"\s*([:;])\s*", r"\1", re.sub(r"font-family: [^;]*;? ?", "", short)).strip(";")
        elif name == "d":
            short = re.sub(r"\s*([A-Za-z])\s*", r"\1", short).strip()
        each.set(name, short)
    each.tail = None
    if each.text is not None and not each.text.strip():
        each.text = None


def _unwrap(parent: ElementTree.Element) -> None:
    """Put what groups without attributes hold in their place."""
    for child in list(parent):
        _unwrap(child)
        if child.tag in (f"{{{SVG}}}g", f"{{{SVG}}}defs") and not child.attrib and not _is_definition(child):
            place = list(parent).index(child)
            parent[place : place + 1] = list(child)


def _gather(parent: ElementTree.Element, name: str) -> None:
    """Give an attribute that neighbours share to a group around them."""
    for child in parent:
        _gather(child, name)
    gathered = []
    for value, run in itertools.groupby(parent, key=lambda child: child.get(name)):
        members = list(run)
        if value is None or len(members) < 3 or re.search(r"(^|;)opacity", value):
            gathered += members
            continue
        group = ElementTree.Element(f"{{{SVG}}}g", {name: value})
        for member in members:
            del member.attrib[name]
        group.extend(members)
        gathered.append(group)
    parent[:] = gathered


def _is_definition(group: ElementTree.Element) -> bool:
    return group.tag == f"{{{SVG}}}defs" and len(group) > 0


def _inline(svg: str, prefix: str, title: str, panels: tuple[float, float]) -> str:
    """Return the panels of an SVG for a page: without title and note, its ids its own."""
    root = ElementTree.fromstring(svg)
    for child in list(root.iter()):
        for word in list(child):
            if word.get("id") in DROPPED:
                child.remove(word)
    width, height = (float(length) for length in root.attrib["viewBox"].split()[2:])
    top, bottom = (share * height for share in panels)
    for name in ("width", "height"):
        del root.attrib[name]
    root.set("viewBox", f"0 {top:.1f} {width:g} {bottom - top:.1f}")
    text = ElementTree.tostring(root, encoding="unicode")
    text = (
        text.replace(' id="', f' id="{prefix}-')
        .replace("url(#", f"url(#{prefix}-")
        .replace('href="#', f'href="#{prefix}-')
    )
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _rounded(found: re.Match[str]) -> str:
    value = float(found[0])
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}".removesuffix(".0")
