"""Quadratic assignment problems in QAPLIB's format: two matrices, and the best assignment known.

Data: "QAPLIB - A Quadratic Assignment Problem Library" (Burkard, Karisch, Rendl 1997), https://qaplib.mgi.polymtl.ca.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .edge_list import IntArray, find_words

FloatArray = NDArray[np.float64]


class Text(NamedTuple):
    """The content of a file, and its name for messages."""

    data: bytes
    source: str


class QAPInstance(NamedTuple):
    """A quadratic assignment problem: minimise :func:`cost` over the permutations.

    Attributes:
        first: Matrix A, float64 (n, n), symmetric or not.
        second: Matrix B, float64 (n, n).
        solution: The best permutation known, from 0, in the convention of :func:`cost`, int64 (n,); ``None`` if none.
    """

    first: FloatArray
    second: FloatArray
    solution: IntArray | None

    @property
    def best_known(self) -> float | None:
        """Cost of ``solution``."""
        return None if self.solution is None else cost(self.first, self.second, self.solution)

    @property
    def symmetric(self) -> bool:
        """Whether both matrices are symmetric."""
        return np.array_equal(self.first, self.first.T) and np.array_equal(self.second, self.second.T)


def cost(first: FloatArray, second: FloatArray, permutation: IntArray) -> float:
    r"""Compute the cost :math:`\sum_{ij} A_{ij} B_{p(i) p(j)}` of an assignment.

    Args:
        first: Matrix A, (n, n).
        second: Matrix B, (n, n).
        permutation: p, from 0, int64 (n,).
    """
    return float((first * second[np.ix_(permutation, permutation)]).sum())


def parse_instance(problem: Text, solution: Text | None = None) -> QAPInstance:
    """Parse a problem and, where there is one, its solution.

    Some of QAPLIB's solutions number from 0, and some give the inverse permutation. The one of the two whose cost is
    the value in the file is taken; if neither's is (kra32 says 88900, its permutation costs 88700), the cheaper one.

    Args:
        problem: The ``.dat`` file: n, then the entries of A and B, row after row, separated by any white space.
        solution: The ``.sln`` file: n, the cost, then the permutation, from 0 or from 1.

    Raises:
        ValueError: Naming file and line, if a text is malformed or they do not fit together.
    """
    first, second = _parse_matrices(*problem)
    if solution is None:
        return QAPInstance(first, second, None)
    value, permutation = _parse_solution(*solution, len(first))
    candidates = [permutation, np.argsort(permutation)]
    costs = [cost(first, second, candidate) for candidate in candidates]
    best = costs.index(value) if value in costs else int(np.argmin(costs))
    return QAPInstance(first, second, candidates[best])


def _parse_matrices(data: bytes, source: str) -> tuple[FloatArray, FloatArray]:
    values, lines = _parse_numbers(data, source)
    size = _parse_size(values, lines, source)
    entries = 2 * size**2
    if len(values) - 1 != entries:
        more = len(values) - 1 > entries
        line = lines[entries + 1] if more else lines[-1]
        what = "more numbers follow" if more else f"the file ends after {len(values) - 1} numbers of the matrices"
        msg = (
            f"{source}, line {line}: {what}, but n = {size} needs {entries} in all, those of two {size} x {size} "
            "matrices; correct the file."
        )
        raise ValueError(msg)
    first, second = values[1:].reshape(2, size, size)
    return first, second


def _parse_solution(data: bytes, source: str, size: int) -> tuple[float, IntArray]:
    values, lines = _parse_numbers(data, source)
    if _parse_size(values, lines, source) != size:
        msg = f"{source}, line {lines[0]}: n = {values[0]:g}, but the problem has n = {size}; check the pair of files."
        raise ValueError(msg)
    numbers = values[2:]
    if len(numbers) != size:
        msg = f"{source}, line {lines[-1]}: {len(numbers)} places where n = {size} are expected; correct the file."
        raise ValueError(msg)
    permutation = numbers - numbers.min()
    if numbers.min() not in (0, 1) or not np.array_equal(np.sort(permutation), np.arange(size)):
        wrong = (np.bincount(np.unique(numbers, return_inverse=True)[1]) > 1).any()
        what = "a place occurs twice" if wrong else f"the places are not 1, ..., {size} or 0, ..., {size - 1}"
        msg = f"{source}, line {lines[2]}: {what}; give a permutation."
        raise ValueError(msg)
    return float(values[1]), permutation.astype(np.int64)


def _parse_size(values: FloatArray, lines: IntArray, source: str) -> int:
    if not (values[0] >= 1 and values[0] == int(values[0])):
        msg = f"{source}, line {lines[0]}: n = {values[0]:g}: the first number must be the size, a whole number >= 1."
        raise ValueError(msg)
    return int(values[0])


def _parse_numbers(data: bytes, source: str) -> tuple[FloatArray, IntArray]:
    """Give all numbers of a text, separated by white space or commas, and the line of each, from 1."""
    data = data.translate(bytes.maketrans(b"\t\r\v\f,", b"     "))
    _, _, counts = find_words(data)
    lines = np.repeat(np.arange(1, len(counts) + 1), counts)
    words = data.split()
    if not words:
        msg = f"{source}: the file is empty; give a file in QAPLIB's format."
        raise ValueError(msg)
    values = np.array([_to_number(word) for word in words])
    if np.isnan(values).any():
        wrong = int(np.isnan(values).argmax())
        text = words[wrong][:40].decode("utf-8", "replace")
        msg = (
            f"{source}, line {lines[wrong]}: {text!r} is no finite number; only numbers are allowed, correct the line."
        )
        raise ValueError(msg)
    return values, lines


def _to_number(word: bytes) -> float:
    try:
        value = float(word)
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")
