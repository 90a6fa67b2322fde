"""Kinds of policies by name, as in ``robo-train TASK --policy NAME``. No torch at import."""

from __future__ import annotations

from policies.learner import PolicyKind
from policies.npc import npc_kind
from policies.stl import stl_kind
from robo.core.registry import Registry

POLICIES: Registry[PolicyKind] = Registry("policy")
POLICIES.register("stl", stl_kind)
POLICIES.register("npc", npc_kind)
