"""A page as one HTML file that loads nothing and runs nothing.

Every value is escaped by the template engine. The content-security policy forbids all but the one
style sheet, by its hash, and pictures inside the file: what slipped through could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["render"]


def render(template: str, page: Any, sections: Sequence[tuple[str, str]]) -> str:
    """Fill a template.

    Args:
        template: its name in ``pipeline/templates``.
        page: what it shows; ``page.title`` is the page's.
        sections: (anchor, name) of the parts, for the row of links.
    """
    loader = PackageLoader("pipeline", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = loader.get_source(environment, "style.css")[0]
    return environment.get_template(template).render(
        page=page,
        sections=sections,
        style=style,
        policy=_policy(style),
        version=_version(),
    )


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _version() -> str:
    try:
        return version("symbio")
    except PackageNotFoundError:
        return ""
