"""Signal temporal logic: `parse` text into a `Formula`; robustness, bounds and monitors hang off it.

Importing this needs neither numpy nor torch; `docs/stl.md` is the language reference.
"""

from tasks.stl.syntax import Formula, parse

__all__ = ["Formula", "parse"]
