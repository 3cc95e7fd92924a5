"""Sections -> one HTML page that fetches nothing: styles, script and pictures are in it.

Texts come from files that anybody may have written: the template escapes all of them, and the page's own policy allows
no script but its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from ... import __version__
from ...support.extras import needs_extra
from .charts import choose_style, draw_chart
from .document import Section

with needs_extra("report"):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

_FOLDER = Path(__file__).parent


def render_page(sections: Sequence[Section]) -> str:
    """Render sections as one HTML page. The same sections give the same text."""
    script = _asset("page.js")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    count = 0

    def drawn(chart) -> Markup:
        nonlocal count
        count += 1
        return Markup("\n").join(Markup(svg) for svg in draw_chart(chart, f"c{count}"))

    text = environment.get_template("page.html").render(
        sections=sections,
        style=Markup(_asset("page.css")),
        script=Markup(script),
        script_digest=digest,
        drawn=drawn,
        choose_style=choose_style,
        encoded=lambda png: base64.b64encode(png).decode(),
        version=__version__,
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair has no place in a file


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
