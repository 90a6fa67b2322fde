# mujoco ships no types; without this every name of its compiled part would read as an error.
from typing import Any

def __getattr__(name: str) -> Any: ...
