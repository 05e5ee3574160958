"""A family of components, and settings that take some."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from advprune_core.base.components import Component, Registry, component_field
from advprune_core.base.settings import Pixels, Settings

TOOLS: Registry[Tool] = Registry("tool", "advprune_core.base.components")


class Tool(Component):
    pass


class Blade(Tool):
    sharp: ClassVar[bool] = False


@TOOLS.register
class Hammer(Tool):
    """Drives nails.

    Not screws.
    """

    name = "hammer"
    weight: Annotated[float, Field(gt=0)] = 1.0
    handle: str = "ash"


@TOOLS.register
class Saw(Tool):
    """Cuts boards."""

    name = "saw"
    teeth: int = 20


class Inner(Settings):
    depth: Annotated[int, Field(ge=1)] = 3
    tool: Annotated[Tool, *component_field(TOOLS)] = Saw()


class Outer(Settings):
    width: Pixels = 0.5
    inner: Inner = Inner()
    tool: Annotated[Tool, *component_field(TOOLS)] = Hammer()
