"""From templates to a page: one file that asks nothing of any network.

Figures are inlined as data, the style sheet is inlined and named in the content security policy by
its hash, and there is no script. Everything that comes from data passes through Jinja's autoescape;
the templates are fixed and never made from data.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["PageFigure", "render_template"]


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it.

    Attributes
    ----------
    slug : str
        Its short name, which says where on the page it stands.
    title, caption : str
        Shown below it as text.
    png_bytes : bytes or None
        None where the figure was not drawn.
    skipped_reason : str
        One sentence that says why it was not.
    """

    slug: str
    title: str
    caption: str
    png_bytes: bytes | None
    skipped_reason: str = ""


def render_template(template: str, **context: Any) -> str:
    """Return a template of this package as a whole page."""
    sheet, style_hash = _style()
    return _environment().get_template(template).render(
        style=sheet, style_hash=style_hash, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cbsbayes.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@cache
def _style() -> tuple[str, str]:
    """Return the style sheet and the source expression that lets the policy admit it."""
    sheet = files("cbsbayes.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    digest = hashlib.sha256(sheet.encode()).digest()
    return sheet, f"'sha256-{base64.b64encode(digest).decode()}'"
