"""The page as one text: description, numbers and program in it, nothing to fetch."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import string
import zlib
from functools import cache
from importlib import resources
from pathlib import Path

from sparsefeat.io.atomic import atomic_write
from sparsefeat.visualize.viewer.scene import Scene
from sparsefeat.visualize.viewer.serve import PageServer

# What the page imports, by the names that its modules use.
_MODULES = {
    "three": "three/three.min.js",
    "viewer/data": "data.js",
    "viewer/shaders": "shaders.js",
    "viewer/stage": "stage.js",
    "viewer/paint": "paint.js",
    "viewer/panel": "panel.js",
    "viewer/picture": "picture.js",
    "viewer/main": "main.js",
}
_FRAME_HEIGHT = 620


class Page:
    """A page that can be saved, served, or shown in a notebook.

    Attributes:
        html: the page, one self-contained text.
    """

    def __init__(self, scene: Scene):
        self.html = _render(scene)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page to one file that opens without a network.

        Raises:
            InputError: the file cannot be written there.
        """
        with atomic_write(path) as temporary:
            temporary.write_text(self.html, encoding="utf-8")
        return Path(path)

    def serve(self, port: int = 0) -> PageServer:
        """Serve the page to this machine, in the background, until ``close()``.

        Args:
            port: 0 for any free one.

        Raises:
            InputError: the port is taken.
        """
        return PageServer(self.html, port)

    def __repr__(self) -> str:
        return f"Page({len(self.html) / 1e6:.1f} MB)"

    def _repr_html_(self) -> str:
        # Scripts, but not the notebook's page, its cookies or its server.
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" sandbox="allow-scripts allow-downloads" '
            f'style="width: 100%; height: {_FRAME_HEIGHT}px; border: 0; border-radius: 8px"></iframe>'
        )


def script_json(value: object) -> str:
    """JSON that may stand within a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _render(scene: Scene) -> str:
    table, blob = _pack(scene)
    description = script_json({**scene.description, "arrays": table})
    data = base64.b64encode(blob).decode("ascii")
    # Only what is marked with this runs. It depends on the data, so no text in the data can know it.
    nonce = hashlib.sha256((description + data).encode()).hexdigest()[:32]
    imports = {
        name: f"data:text/javascript;base64,{_base64(file)}" for name, file in _MODULES.items()
    }
    return string.Template(_static("viewer.html")).substitute(
        title=html.escape(scene.description["title"]),
        nonce=nonce,
        style=_static("viewer.css"),
        description=description,
        data=data,
        imports=script_json({"imports": imports}),
        license=html.escape(_static("three/LICENSE")).replace("--", "- -"),
    )


def _pack(scene: Scene) -> tuple[list[dict], bytes]:
    """Where each array lies in the packed numbers, and these, compressed."""
    table, parts, offset = [], [], 0
    for array in scene.arrays:
        table.append({"type": array.dtype.name, "shape": list(array.shape), "offset": offset})
        raw = array.tobytes()
        padding = -len(raw) % 8
        parts += [raw, bytes(padding)]
        offset += len(raw) + padding
    # Level 1: features are noise to a compressor, and faces and colours shrink at any level.
    return table, zlib.compress(b"".join(parts), 1)


@cache
def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


@cache
def _base64(name: str) -> str:
    return base64.b64encode(_static(name).encode()).decode("ascii")
