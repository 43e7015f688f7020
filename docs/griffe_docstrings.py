"""Extension of Griffe: docstrings as the site shows them."""

import re
from typing import Any

import griffe

from lazytorch import models
from lazytorch.models.compose import with_shared_sections


class Docstrings(griffe.Extension):
    """Completes the docstrings of families, and shows ``Example:`` as code: Griffe knows only ``Examples:``."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by Griffe with everything that it finds."""
        if obj.docstring is None:
            return
        value = getattr(models, obj.name, None) if obj.path.startswith("lazytorch.models.") else None
        if isinstance(value, type) and issubclass(value, models.Network) and value is not models.Network:
            obj.docstring.value = with_shared_sections(obj.docstring.value)
        obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
