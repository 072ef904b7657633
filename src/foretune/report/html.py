"""The frame of every page: one file, escaped, with a policy that forbids every request and every script.

The style sheet is named by its hash, so that a text that slipped through the escaping would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from foretune.errors import StoreError


def rendered(template: str, styles: Sequence[str], values: Mapping[str, Any]) -> str:
    """A page of this folder's template, with the style sheets in it.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    style = "".join(packed(name) for name in styles)
    frame = {
        "style": Markup(style),
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "version": version("foretune"),
    }
    page: str = _environment().get_template(template).render(frame, **values)
    return page


def packed(name: str) -> str:
    """A file of this folder as text."""
    return resources.files("foretune.report").joinpath(name).read_text(encoding="utf-8")


def written(path: Path, text: str) -> Path:
    """Write a text, with the folder that holds it.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(
            f"`{path}` cannot be written: {error.strerror}. Free some space, or use another --out."
        ) from error
    return path


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(packed),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["breakable"] = lambda text: escape(text).replace("_", Markup("_<wbr>"))
    made.filters["prose"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    return made
