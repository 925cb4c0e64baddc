"""QAPLIB's format: conventions, known costs, and errors that name file and line."""

import csv
import itertools

import numpy as np
import pytest

from theodolite.datamodules.qaplib import Text, cost, parse_instance

A = np.array([[0, 1, 2], [3, 0, 4], [5, 6, 0]], dtype=float)
B = np.array([[0, 7, 1], [2, 0, 9], [8, 3, 0]], dtype=float)
PROBLEM = b"3\n\n0 1 2\n3 0 4\n5 6 0\n\n0 7 1\n2 0 9\n8 3 0\n"


def problem(data=PROBLEM):
    return Text(data, "mine.dat")


def read(folder, name):
    texts = [Text((folder / f"{name}{suffix}").read_bytes(), name) for suffix in (".dat", ".sln")]
    return parse_instance(*texts)


@pytest.mark.parametrize(
    "data",
    [
        PROBLEM,
        PROBLEM.replace(b"\n", b"\r\n"),
        b"\t3 0 1 2 3 0 4\v5 6 0 0 7\n1 2\n0 9 8 3 0",
        b"3,\n0, 1.0, 2e0,\n3,0,4,\n5,6,0\n0,7,1\n2,0,9\n8,3,0\n\n\n",
    ],
)
def test_white_space_does_not_matter(data):
    instance = parse_instance(problem(data))
    assert np.array_equal(instance.first, A)
    assert np.array_equal(instance.second, B)
    assert instance.first.dtype == np.float64
    assert instance.best_known is None
    assert not instance.symmetric


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("inverse", [False, True])
def test_solutions_are_read_in_each_convention(start, inverse):
    """The permutation (1, 2, 0) and its inverse cost differently, and the value tells which is meant."""
    p = np.array([1, 2, 0])
    value = sum(A[i, j] * B[p[i], p[j]] for i, j in itertools.product(range(3), repeat=2))
    assert value != cost(A, B, np.argsort(p))
    written = (np.argsort(p) if inverse else p) + start
    instance = parse_instance(problem(), Text(f" 3 {value:g}\n {written[0]},{written[1]} {written[2]}\n".encode(), "s"))
    assert instance.solution.tolist() == p.tolist()
    assert instance.best_known == value


def test_a_wrong_value_is_costed_anew():
    instance = parse_instance(problem(), Text(b"3 1\n1 2 3", "s"))
    assert instance.best_known == cost(A, B, np.arange(3))


def test_cost_is_the_trace():
    """trace(A^T X B X^T) with X[i, p(i)] = 1; with a cycle for A, twice the length of the tour."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 6, 6))
    p = rng.permutation(6)
    x = np.eye(6)[p]
    assert cost(a, b, p) == pytest.approx(np.trace(a.T @ x @ b @ x.T))
    cycle = np.roll(np.eye(6), 1, axis=1) + np.roll(np.eye(6), -1, axis=1)
    angle = 2 * np.pi * np.arange(6) / 6
    points = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert cost(cycle, distances, np.arange(6)) / 2 == pytest.approx(2 * 6 * np.sin(np.pi / 6))


def test_chr12c(data_dir):
    instance = read(data_dir / "qaplib", "chr12c")
    p = np.array([6, 4, 0, 2, 9, 3, 7, 5, 8, 10, 1, 11])
    assert instance.solution.tolist() == p.tolist()
    assert cost(instance.first, instance.second, p) == instance.best_known == 11156
    assert cost(instance.first, instance.second, np.argsort(p)) == 37812
    assert instance.symmetric


def test_every_shipped_solution_costs_what_is_listed(data_dir):
    with (data_dir / "qaplib" / "best_known.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["instance"] not in ("tai10a", "tai10b")]
    assert len(rows) == 134
    for row in rows:
        instance = read(data_dir / "qaplib", row["instance"])
        assert len(instance.first) == int(row["n"])
        assert instance.best_known == float(row["cost_recomputed_from_shipped_permutation"])
        assert instance.symmetric == (row["both_matrices_symmetric"] == "1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "mine.dat: the file is empty"),
        (b" \n\t\n", "mine.dat: the file is empty"),
        (PROBLEM.replace(b"9", b"x9"), "mine.dat, line 8: 'x9' is no finite number"),
        (PROBLEM.replace(b"9", b"nan"), "mine.dat, line 8: 'nan' is no finite number"),
        (PROBLEM.replace(b"9", b"\xff"), "mine.dat, line 8: .* is no finite number"),
        (PROBLEM.replace(b"8 3 0", b"8 3"), "mine.dat, line 9: the file ends after 17 .* n = 3 needs 18"),
        (PROBLEM + b"\n5 5\n", "mine.dat, line 11: more numbers follow, but n = 3 needs 18"),
        (b"2.5\n1 2 3", "mine.dat, line 1: n = 2.5: the first number must be the size"),
        (b"\n\n-3\n", "mine.dat, line 3: n = -3"),
    ],
)
def test_a_malformed_problem_is_refused_by_name_and_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_instance(problem(data))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "mine.sln: the file is empty"),
        (b"4 10\n1 2 3 4", "mine.sln, line 1: n = 4, but the problem has n = 3"),
        (b"3 10\n1 2", "mine.sln, line 2: 2 places where n = 3 are expected"),
        (b"3 10\n1 2 3 1", "mine.sln, line 2: 4 places"),
        (b"3", "mine.sln, line 1: 0 places"),
        (b"3 10\n\n1 2 2", "mine.sln, line 3: a place occurs twice"),
        (b"3 10\n2 3 4", "mine.sln, line 2: the places are not 1, ..., 3 or 0, ..., 2"),
        (b"3 10\n1 2 a", "mine.sln, line 2: 'a'"),
    ],
)
def test_a_malformed_solution_is_refused_by_name_and_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_instance(problem(), Text(data, "mine.sln"))
    assert "\n" not in str(error.value)
