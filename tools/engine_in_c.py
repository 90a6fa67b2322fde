"""The STL engine's interpreters in C, timed beside numba's: ``python tools/engine_in_c.py``; needs a C compiler.

This is how it was decided that numba is enough (docs/benchmarks.md). Nothing else uses it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tasks.stl import compiled, parse
from tasks.stl.program import plan

SOURCE = r"""
#include <math.h>
#include <stdint.h>
#include <string.h>
enum { LOAD, FILL, COPY, FLIP, MAX, MIN, REDUCE_MAX, REDUCE_MIN, STORE };
#define PICK(x, y, better) ((x) better (y) ? (x) : ((x) != (x) ? (x) : (y)))

void values(const int64_t *rows, int64_t count, const float *bank, int64_t batch, int64_t columns,
            float *out, int64_t samples, float *restrict s) {
  for (int64_t t = 0; t < batch; t++)
    for (int64_t k = 0; k < count; k++) {
      const int64_t op = rows[5*k], into = rows[5*k+1], n = rows[5*k+2], a = rows[5*k+3], b = rows[5*k+4];
      const float *x = s + a, *y = s + b; float *z = s + into;
      if (op == MAX) { _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) z[i] = PICK(x[i], y[i], >=); }
      else if (op == MIN) { _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) z[i] = PICK(x[i], y[i], <=); }
      else if (op == LOAD) memcpy(z, bank + t*columns + a, n * sizeof(float));
      else if (op == STORE) memcpy(out + t*samples, x, n * sizeof(float));
      else if (op == COPY) memmove(z, x, n * sizeof(float));
      else if (op == FLIP) for (int64_t i = 0; i < n; i++) z[i] = x[n-1-i];
      else if (op == FILL) for (int64_t i = 0; i < n; i++) z[i] = a == 1 ? INFINITY : -INFINITY;
      else { float best = x[0];
        for (int64_t i = 1; i < b; i++)
          if (x[i] != x[i] || (op == REDUCE_MAX ? x[i] > best : x[i] < best)) best = x[i];
        *z = best; }
    }
}

void tracked(const int64_t *rows, int64_t count, const float *bank, int64_t batch, int64_t columns,
             float *out, int16_t *from, int64_t samples, float *restrict s, int32_t *restrict c) {
  for (int64_t t = 0; t < batch; t++)
    for (int64_t k = 0; k < count; k++) {
      const int64_t op = rows[5*k], into = rows[5*k+1], n = rows[5*k+2], a = rows[5*k+3], b = rows[5*k+4];
      const float *x = s + a, *y = s + b; float *z = s + into;
      const int32_t *p = c + a, *q = c + b; int32_t *r = c + into;
      if (op == MAX) { _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) {
          int32_t m = -(int32_t)(x[i] >= y[i]); z[i] = PICK(x[i], y[i], >=); r[i] = q[i] ^ ((p[i] ^ q[i]) & m); } }
      else if (op == MIN) { _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) {
          int32_t m = -(int32_t)(x[i] <= y[i]); z[i] = PICK(x[i], y[i], <=); r[i] = q[i] ^ ((p[i] ^ q[i]) & m); } }
      else if (op == LOAD) { memcpy(z, bank + t*columns + a, n * sizeof(float));
        for (int64_t i = 0; i < n; i++) r[i] = (int32_t)(a + i); }
      else if (op == STORE) { memcpy(out + t*samples, x, n * sizeof(float));
        for (int64_t i = 0; i < n; i++) from[t*samples + i] = (int16_t)p[i]; }
      else if (op == COPY) { memmove(z, x, n * sizeof(float)); memmove(r, p, n * sizeof(int32_t)); }
      else if (op == FLIP) for (int64_t i = 0; i < n; i++) { z[i] = x[n-1-i]; r[i] = p[n-1-i]; }
      else if (op == FILL) for (int64_t i = 0; i < n; i++) { z[i] = a == 1 ? INFINITY : -INFINITY; r[i] = columns; }
      else { float best = x[0]; int32_t where = p[0];
        for (int64_t i = 1; i < b; i++)
          if (best == best && (x[i] != x[i] || (op == REDUCE_MAX ? x[i] > best : x[i] < best))) {
            best = x[i]; where = p[i]; }
        *z = best; *r = where; }
    }
}

void scatter(const float *grad, const int16_t *from, float *bank, int64_t batch, int64_t samples, int64_t columns) {
  memset(bank, 0, batch * columns * sizeof(float));
  for (int64_t t = 0; t < batch; t++) {
    const float *g = grad + t*samples; const int16_t *c = from + t*samples; float *into = bank + t*columns;
    float total = g[0]; int16_t last = c[0];
    for (int64_t i = 1; i < samples; i++)
      if (c[i] == last) total += g[i];
      else { if (last != columns) into[last] += total; total = g[i]; last = c[i]; }
    if (last != columns) into[last] += total;
  }
}
"""
FORMULAS = ("F[0,50](G[0,20](x > 0))", "G[0,500](F[0,300](x > 0))")


def build(folder: Path) -> ctypes.CDLL:
    """The library, compiled for this processor."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("no C compiler found; this comparison needs one: apt-get install gcc")
    (folder / "engine.c").write_text(SOURCE)
    options = ["-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(folder / "engine.so"), str(folder / "engine.c")], check=True)
    return ctypes.CDLL(str(folder / "engine.so"))


def median_us(call: Callable[[], object], turns: int = 400) -> float:
    """Median time of a call [us]."""
    taken = []
    for _ in range(turns):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return 1e6 * float(np.median(taken[turns // 10 :]))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Where an array begins."""
    return ctypes.c_void_p(array.ctypes.data)


def run(by: str, library: ctypes.CDLL, table: compiled.Table) -> tuple[list[float], list[np.ndarray]]:
    """Times [us] of values alone and of values with columns and gradient; and the numbers."""
    size, batch = ctypes.c_int64, 256
    bank = np.random.default_rng(0).normal(size=(batch, table.columns)).astype(np.float32).cumsum(1)
    grad = np.random.default_rng(1).normal(size=(batch, table.samples)).astype(np.float32)
    scratch, columns = np.zeros(table.scratch, np.float32), np.zeros(table.scratch, np.int32)
    out = np.zeros((batch, table.samples), np.float32)
    origin, back = np.zeros(out.shape, np.int16), np.zeros_like(bank)
    head = (pointer(table.rows), size(len(table.rows)), pointer(bank), size(batch), size(table.columns))
    sizes = (size(batch), size(table.samples), size(table.columns))

    def values() -> None:
        if by == "numba":
            compiled.run_values(table.rows, bank, out, scratch)
        else:
            library.values(*head, pointer(out), size(table.samples), pointer(scratch))

    def both() -> None:
        if by == "numba":
            compiled.run_tracked(table.rows, bank, out, origin, scratch, columns)
            compiled.run_scatter(grad, origin, back)
        else:
            where = (pointer(out), pointer(origin), size(table.samples), pointer(scratch), pointer(columns))
            library.tracked(*head, *where)
            library.scatter(pointer(grad), pointer(origin), pointer(back), *sizes)

    values()
    first = out.copy()
    both()
    found = [first, out.copy(), origin.copy(), back.copy()]
    return [median_us(values), median_us(both)], found


def main() -> int:
    """Print both times, after comparing the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        print(
            "| formula, 256 x 1000 | by | values [us] | values, columns and gradient [us] |\n| --- | --- | --- | --- |"
        )
        for text in FORMULAS:
            table = compiled.table(plan(parse(text), 1.0, 1000, whole=True))
            results = {by: run(by, library, table) for by in ("numba", "C")}
            for mine, theirs in zip(results["numba"][1], results["C"][1], strict=True):
                np.testing.assert_array_equal(mine, theirs)
            for by, (times, _) in results.items():
                print(f"| `{text}` | {by} | {times[0]:.0f} | {times[1]:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
