"""What an instruction means, as typed text, and the check that every reward passes before it trains anything.

`program.Program` is the text: stages, mission, goal, added safety. `verify.verify` is the check. After RoboHorizon
(arXiv 2501.06605), where a language model writes staged rewards; here it writes formulas, never code.
"""
