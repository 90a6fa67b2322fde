"""What other libraries mean by the same text, said in our own terms.

Our semantics are rtamt's. Where another library means something else, its formula is translated into one of ours, so
that robustness, gradients, verdicts, monitors and planners all follow it.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tasks.stl.syntax import Formula, Truth, Until, Window, conjunction, map_tree


def from_stlcgpp(formula: Formula) -> Formula:
    """The formula that means here what `formula` means to stlcgpp 0.0.2 with its default padding.

    - ``p U q`` needs p at the moment of q as well: ``p U (p and q)``.
    - ``G[a,b] p`` is false where its window reaches beyond the end of the trace (``G[a,inf] p``: where it is empty),
      not vacuously true. stlcgpp says minus 1e9 there, we say minus infinity.

    stlcgpp has no past, weak or next operators; those keep their meaning.
    """

    def change(node: Formula) -> Formula:
        if isinstance(node, Until) and node.op == "U":
            return replace(node, right=conjunction((node.left, node.right)))
        if isinstance(node, Window) and node.op == "G":
            start, end = node.interval.numbers()
            last = start if end == math.inf else end
            exists = Window("F", replace(node.interval, start=last, end=last), Truth(True))
            return conjunction((node, exists))
        return node

    return map_tree(formula, change)
