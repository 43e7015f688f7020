"""Shows the ``Example:`` of our docstrings as code: Griffe knows the heading only as ``Examples:``."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the heading in each docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by Griffe with everything that it finds."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
