"""Kinds of policies by name, as in ``robo-train TASK --policy NAME``. No torch at import."""

from __future__ import annotations

from policies.expert import expert_kind
from policies.horizon import horizon_kind
from policies.imitation import act_kind, bc_kind, diffusion_kind
from policies.learner import PolicyKind
from policies.npc import npc_kind
from policies.planners import cem_kind, grad_kind, milp_kind, mpc_kind, mppi_kind
from policies.sac import sac_kind
from policies.simple import random_kind, zero_kind
from policies.spec import spec_kind
from policies.stl import stl_kind
from robo.core.registry import Registry

POLICIES: Registry[PolicyKind] = Registry("policy")
POLICIES.register("stl", stl_kind)
POLICIES.register("npc", npc_kind)
POLICIES.register("grad", grad_kind)
POLICIES.register("cem", cem_kind)
POLICIES.register("mppi", mppi_kind)
POLICIES.register("mpc", mpc_kind)
POLICIES.register("milp", milp_kind)
POLICIES.register("sac", sac_kind)
POLICIES.register("spec", spec_kind)
POLICIES.register("expert", expert_kind)
POLICIES.register("random", random_kind)
POLICIES.register("zero", zero_kind)
POLICIES.register("bc", bc_kind)
POLICIES.register("act", act_kind)
POLICIES.register("diffusion", diffusion_kind)
POLICIES.register("horizon", horizon_kind)
