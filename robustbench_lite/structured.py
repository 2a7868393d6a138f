"""Threats with a structure: a patch, a movement, a corruption."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# By the name that --threat knows; each can be made without arguments.
STRUCTURED: Mapping[str, type[Any]] = MappingProxyType({})
