"""Replace a node of an OpenVINO graph."""

from __future__ import annotations

from typing import Any


def replace_node(node: Any, replacement: Any) -> None:
    """Connect all users of a node's first output to the replacement's first output."""
    for user in node.output(0).get_target_inputs():
        user.replace_source_output(replacement.output(0))
