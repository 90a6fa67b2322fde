"""Functions compiled by numba, kept on disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function compiled without the GIL; options are those of ``numba.njit``."""
    try:
        return numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep what was compiled: then it is compiled in every process
        return numba.njit(nogil=True, **options)(function)
