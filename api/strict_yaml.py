"""YAML in which a key may stand once in its mapping; PyYAML lets the last one win without a word."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's own
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):  # another kind of key is refused by PyYAML
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    msg = f"line {line}: {key.value!r} stands already in line {lines[name]}"
                    raise yaml.YAMLError(msg)
                lines[name] = line
        return super().construct_mapping(node, deep)


def load_strictly(text: str) -> object:
    """The document.

    Raises
    ------
    yaml.YAMLError
        It is no YAML, or a key stands twice; the text names the line.
    ValueError
        A scalar cannot be read, such as a day in a thirteenth month.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
