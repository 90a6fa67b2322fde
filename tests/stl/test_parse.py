"""Text → tree → text, and what is said about bad text."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings

from robo.core.errors import SpecError
from tasks.stl import Formula, parse
from tasks.stl.syntax import MAX_DEPTH, MAX_LENGTH, And, Predicate
from tests.stl.formulas import formulas, predicates

SIGNALS = ("x", "y", "ee_height", "clearance")


@settings(max_examples=200, deadline=None)
@given(formulas(leaves=predicates, max_leaves=10))
def test_printed_text_parses_to_the_same_formula(formula: Formula) -> None:
    text = str(formula)
    again = parse(text)
    assert again == formula
    assert str(again) == text


SAME = [
    ("G[0,5](x > 0)", "always[0,5] x > 0", "alw_[0,5] (x[t] > 0)", "G[0:5] (x > 0)", "always_[0, 5] (x > 0)"),
    ("F[0,2](x > 0)", "eventually[0,2s](x > 0)", "ev_[0,2] (x[t] > 0)", "F[0s:2000ms] x > 0", "F[0, 2 s](x>0)"),
    ("x > 0 U[1,2] y > 0", "x > 0 until[1,2] y > 0", "(x[t] > 0) until_[1,2] (y[t] > 0)", "x>0 U[1:2s] y>0"),
    ("x > 0 S y > 0", "x > 0 since y > 0", "(x > 0) S[0,inf] (y > 0)"),
    ("H[0,1](x > 0)", "historically[0,1] x > 0", "hist_[0,1](x[t] > 0)"),
    ("O(x > 0)", "once (x > 0)", "O[0,inf](x > 0)", "once_[0,inf] (x > 0)"),
    ("G[2,inf](x > 0)", "alw_[2, inf] (x[t] > 0)"),
    ("not (x > 0)", "!(x > 0)", "~ (x > 0)", "not x > 0", "!x>0"),
    ("x > 0 and y > 0", "x > 0 && y > 0", "x>0 & y>0", "(x > 0) and (y > 0)"),
    ("x > 0 or y > 0", "x > 0 || y > 0", "x>0 | y>0"),
    ("x > 0 implies y > 0", "x > 0 -> y > 0", "x > 0 => y > 0"),
    ("x > 0 iff y > 0", "x > 0 <-> y > 0", "x>0<=>y>0"),
    ("x^2 > 0", "x ** 2 > 0", "pow(x, 2) > 0", "x ^ (2) > 0"),
    ("x > 0 and y > 0 and x < 1", "x > 0 and (y > 0 and x < 1)", "(x > 0 and y > 0) and x < 1"),
    ("x > 0 or y > 0 and x < 1", "x > 0 or (y > 0 and x < 1)"),
    ("x > 0 and y > 0 U[0,1] x < 1", "x > 0 and (y > 0 U[0,1] x < 1)"),
    ("x > 0 or y > 0 implies x < 1", "(x > 0 or y > 0) implies x < 1"),
    ("G[0,1](x > 0) and y > 0", "G[0,1] x > 0 and y > 0", "(G[0,1] x > 0) and y > 0"),
    ("-x^2 - 3 * (y - 1) / 2 > 0", "(-(x^2)) - ((3*(y-1))/2) > 0"),
    ("x - (y - 1) > .5", "x-(y-1)>0.5", "x - (y - 1) > 5e-1"),
    ("x > 0 W[0,2] y > 0", "x > 0 unless[0,2] y > 0", "(x > 0) W[0:2] (y > 0)"),
    ("x > 0 R y > 0", "x > 0 release y > 0", "(x > 0) release[0,inf] (y > 0)"),
    ("X(x > 0) or Y(y > 0)", "next x > 0 or prev y > 0", "X X[t] > 0 or Y y > 0".replace("X[t]", "x[t]")),
    ("G[0,5 steps](x > 0)", "always[0,5steps] x > 0", "G[0 steps, 5 step] (x > 0)"),
    ("F[2 steps,inf](x > 0)", "ev_[2 steps:inf] (x > 0)"),
    ("G[0,$tmax](x > $low + 1)", "always[0,$tmax s](x > ($low) + 1)"),
    ("norm(x, y, 1) < max(x, y) + abs(-x)", "norm(x,y,1)<max(x , y)+abs( -x )"),
]


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_spellings_mean_the_same(spellings: tuple[str, ...]) -> None:
    first = parse(spellings[0], SIGNALS)
    for other in spellings[1:]:
        assert parse(other, SIGNALS) == first, other


# text, parts the message must hold
BAD = [
    ("", "column 1", "empty"),
    ("   ", "empty"),
    ("x", "compare it", "x > 0"),
    ("x + 1", "column 1", "compare it", "x + 1 > 0"),
    ("G[0,8] x", "column 8", "number-valued 'x'"),
    ("x >", "column 4", "end of the text"),
    ("> 0", "column 1", "got '>'"),
    ("x > 0)", "column 6", "')' without '('"),
    ("(x > 0", "column 1", "never closed"),
    ("x == 0", "column 3", "abs(a - b) < 0.01"),
    ("x != 0", "column 3", "no robustness"),
    ("x = 0", "column 3", "no robustness"),
    ("0 < x < 1", "column 7", "chained", "a < b and b < c"),
    ("ee_hieght > 0", "column 1", "unknown signal 'ee_hieght'", "did you mean 'ee_height'"),
    ("x > 0 and G[0,1](clearence > 0)", "column 18", "did you mean 'clearance'"),
    ("alway[0,5](x > 0)", "column 1", "unknown operator 'alway'", "did you mean 'always'"),
    ("eventualy(x > 0)", "unknown function 'eventualy'", "did you mean 'eventually'"),
    ("sqr(x) > 0", "unknown function 'sqr'", "did you mean 'sqrt'"),
    ("x > 0 untill y > 0", "column 7", "did you mean 'until'"),
    ("x > 0 y > 0", "column 7", "expected an operator"),
    ("G[0,8(x > 0)", "column 6", "expected ']'", "got '('"),
    ("G[0 8](x > 0)", "column 5", "',' or ':'"),
    ("G[,8](x > 0)", "column 3", "time in seconds as the start"),
    ("G[0,](x > 0)", "column 5", "time in seconds as the end"),
    ("G[3,1](x > 0)", "column 2", "ends at 1 s", "start at 3 s"),
    ("G[-1,1](x > 0)", "column 3", "negative", "H, O or S"),
    ("G[inf,inf](x > 0)", "column 2", "start at inf"),
    ("G[0,5min](x > 0)", "column 6", "unit 'min'", "available: ms, s, step, steps"),
    ("G[0,y](x > 0)", "column 5", "time in seconds"),
    ("G", "column 2", "end of the text"),
    ("not x", "column 5", "compare it"),
    ("x > 0 and", "column 10", "end of the text"),
    ("x > 0 and y", "column 11", "compare it"),
    ("x + (y > 0) > 1", "column 5", "number-valued side", "'y > 0'"),
    ("x > 0 + G(y > 0)", "column 9", "number-valued side"),
    ("x > 0 -> y > 0 -> x < 1", "column 16", "add parentheses"),
    ("x > 0 U y > 0 U x < 1", "column 15", "add parentheses"),
    ("x^2^3 > 0", "column 4", "add parentheses"),
    ("x^y > 0", "column 3", "constant number as the power"),
    ("abs(x, y) > 0", "column 1", "takes 1 argument, got 2"),
    ("max(x) > 0", "column 1", "at least 2"),
    ("max(x, y", "column 9", "expected ')'"),
    ("max(x, y > 0)", "column 8", "number-valued side", "'y > 0'"),
    ("abs x > 0", "column 5", "expected '('"),
    ("x / 0 > 1", "column 3", "no finite number"),
    ("sqrt(-1) < x", "no finite number"),
    ("1 > 0", "numbers alone", "true or false"),
    ("x > 1e999", "column 5", "too large"),
    ("x > $ max", "column 5", "unexpected character '$'"),
    ("$max > 0", "numbers alone"),
    ("x[1.5] > 0", "column 3", "whole number"),
    ("x > y and p[0] > 0", "column 11", "unknown signal 'p'"),
    ("X[0,1](x > 0)", "column 2", "takes no interval"),
    ("G[1 steps,2](x > 0)", "column 2", "same unit"),
    ("G[0,1.5 steps](x > 0)", "column 2", "whole numbers"),
    ("G[0,2 stepz](x > 0)", "column 7", "did you mean 'step'"),
    ("G[0,$t ms](x > 0)", "column 8", "in seconds, or in steps"),
    ("x > 0 W y > 0 R x < 1", "column 15", "add parentheses"),
    ("x[0] > 0", "column 3", "x[t]"),
    ("+x > 0", "column 1", "sign '+'"),
    ("true > x", "number-valued side"),
    ("__import__(os) > 0", "unknown function '__import__'"),
    ("x.__class__ > 0", "unknown signal 'x.__class__'"),
    ("x > 'a'", "unexpected character"),
    ("x > 0 and ∞ > x", "column 11", "unexpected character"),
]


@pytest.mark.parametrize(("text", "parts"), [(row[0], row[1:]) for row in BAD], ids=lambda v: str(v)[:30])
def test_bad_text_gets_one_clear_line(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, SIGNALS)
    message = str(caught.value)
    assert "\n" not in message
    assert "column" in message
    for part in parts:
        assert part in message, message


def test_message_points_at_the_place() -> None:
    with pytest.raises(SpecError, match=re.escape("at: G[0,8]( -->ee_hieght<-- > 0.1)")):
        parse("G[0,8](ee_hieght > 0.1)", SIGNALS)


def test_untrusted_text_is_bounded() -> None:
    for text in ("(" * 5000 + "x > 0" + ")" * 5000, "not " * 5000 + "x > 0", "-" * 5000 + "x > 0", "G" + "(G" * 5000):
        with pytest.raises(SpecError, match="deeper"):
            parse(text)
    with pytest.raises(SpecError, match="deeper"):
        parse(" + ".join(["x"] * 200) + " > 0")
    with pytest.raises(SpecError, match="characters"):
        parse("x > 0 and " * MAX_LENGTH + "x > 0")
    with pytest.raises(SpecError, match="expected text"):
        parse(None)  # type: ignore[arg-type]
    assert len(parse(" and ".join(f"x > {i}" for i in range(3000))).conjuncts) == 3000
    deepest = parse("not " * (MAX_DEPTH - 5) + "x > 0")
    assert parse(str(deepest)) == deepest and hash(deepest) == hash(parse(str(deepest)))


def test_a_signal_cannot_be_called_like_a_word() -> None:
    for name in ("G", "until", "alw_", "max", "2x", "a b", ""):
        with pytest.raises(SpecError, match="cannot stand in a formula"):
            parse("x > 0", ["x", name])
    assert parse("arm.height_m > 0", ["arm.height_m"]).signals == ("arm.height_m",)


def test_components_of_vectors() -> None:
    vectors = {"ee_pos": 3}
    formula = parse("ee_pos[2] > x and ee_pos[0] < 1", ["x"], vectors)
    assert formula.signals == ("ee_pos", "x") and [v.channel for v in formula.channels] == [
        "ee_pos[2]",
        "x",
        "ee_pos[0]",
    ]
    assert parse(str(formula)) == formula
    for text, message in [
        ("ee_pos[3] > 0", "has 3 components, 0 .. 2; got 3"),
        ("ee_pos > 0", r"is a vector; a component is written ee_pos\[0\]"),
        ("x[1] > 0", "'x' is no vector"),
        ("ee_poz[1] > 0", "did you mean 'ee_pos'"),
    ]:
        with pytest.raises(SpecError, match=message):
            parse(text, ["x"], vectors)
    with pytest.raises(SpecError, match="'p' is a vector"):
        parse("p[0] > 0 and p > 1")


def test_parameters_are_bound_later() -> None:
    formula = parse("F[$from,$to](x > $level) and G[0,$n steps](x / ($level + 1) < 1)")
    assert formula.parameters == ("from", "to", "level", "n")
    part = formula.bind(level=-0.5, n=4)
    assert part.parameters == ("from", "to") and parse(str(part)) == part
    whole = part.bind(**{"from": 1, "to": 2.5})
    assert whole == parse("F[1,2.5](x > -0.5) and G[0,4 steps](x / (-0.5 + 1) < 1)")
    assert formula.parameters == ("from", "to", "level", "n"), "binding makes a new formula"
    for values, message in [
        ({"leval": 1}, "no parameter '\\$leval': did you mean 'level'"),
        ({"level": math.nan}, "must be a finite number"),
        ({"level": "1"}, "must be a finite number"),
        ({"level": -1}, "divides by zero"),
        ({"from": 3, "to": 2}, "ends at 2 s, before its start at 3 s"),
        ({"n": 1.5}, "whole numbers"),
        ({"to": -1}, "negative"),
    ]:
        with pytest.raises(SpecError, match=message):
            formula.bind(**{"from": 1, "to": 2, "level": 0, "n": 2} | values)  # type: ignore[arg-type]
    for call in (lambda f: f.horizon_s, lambda f: f.rho({"x": [1.0]}, 1.0), lambda f: f.monitor(1.0)):
        with pytest.raises(SpecError, match=r"unbound parameters \$from, \$to; bind\(from=..., to=...\)"):
            call(parse("F[$from,$to](x > 0)"))
    with pytest.raises(SpecError, match=r"unbound parameter \$level; bind\(level=...\)"):
        parse("x > $level").rho({"x": [1.0]}, 1.0)


def test_what_a_formula_says_about_itself() -> None:
    formula = parse("F[0,4](a > 0) and F[4,7](G[0,1](b > 0)) and G[0,8](c > 0 and a > 0)")
    assert formula.signals == ("a", "b", "c")
    assert [str(p) for p in formula.predicates] == ["a > 0", "b > 0", "c > 0"]
    assert [str(c) for c in formula.conjuncts] == ["F[0,4](a > 0)", "F[4,7](G[0,1](b > 0))", "G[0,8](c > 0 and a > 0)"]
    assert isinstance(formula, And) and isinstance(formula.predicates[0], Predicate)
    assert parse("a > 0").conjuncts == (parse("a > 0"),)


@pytest.mark.parametrize(
    ("text", "horizon_s"),
    [
        ("x > 0", 0.0),
        ("F[0,4](x > 0) and F[4,7](G[0,1](x > 0))", 8.0),
        ("G(x > 0)", math.inf),
        ("x > 0 U[1,2] G[0,500ms](y > 0)", 2.5),
        ("H[0,3](x > 0)", 0.0),
        ("G[0,2](O(x > 0))", 2.0),
        ("H[1,3](F[0,4](x > 0))", 3.0),
        ("F[0,1](x > 0) S[2,3] G[0,5](y > 0)", 3.0),
        ("x > 0 W[1,2] y > 0", 2.0),
        ("x > 0 R[1,2] F[0,1](y > 0)", 3.0),
    ],
)
def test_horizon(text: str, horizon_s: float) -> None:
    assert parse(text).horizon_s == horizon_s


def test_the_horizon_of_steps_depends_on_their_length() -> None:
    formula = parse("G[0,5 steps](X(x > 0)) and F[0,1](Y(x > 0))")
    assert formula.horizon(0.5) == 3.0 and formula.horizon(0.1) == 1.0
    with pytest.raises(SpecError, match=r"depends on dt: horizon\(dt\)"):
        _ = formula.horizon_s


def test_needs_no_torch() -> None:
    code = """
import sys
import tasks.stl
assert not {"torch", "mujoco"} & set(sys.modules)
formula = tasks.stl.parse("F[0,1](x > 0) and norm(x, y) < 3")
assert not {"torch", "numpy"} & set(sys.modules)
monitor = formula.monitor(0.5)
monitor.update({"x": 1.0, "y": 2.0})
formula.rho({"x": [1, 2, 3], "y": [0, 0, 0]}, 0.5)
assert not {"torch", "mujoco"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
