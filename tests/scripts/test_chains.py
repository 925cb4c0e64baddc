import pytest

from theodolite.scripts.chains import changing, fill, in_order, needs

WORDS = ["--data.checkpoint", "{source}", "--ckpt_path", "{a-b:last}", "--data.split_seed", "{seed}", "{class: 1}"]


def test_placeholders_are_found_and_filled_and_nothing_else_is():
    assert needs(WORDS) == ["source", "a-b"]
    assert changing(WORDS) == ["{source}", "{a-b:last}", "{seed}"]
    filled = fill(WORDS, 7, lambda name, kind: f"{name}/{kind}.ckpt")
    assert filled == (
        "--data.checkpoint", "source/best.ckpt", "--ckpt_path", "a-b/last.ckpt", "--data.split_seed", "7", "{class: 1}",
    )  # fmt: skip


def test_each_run_comes_once_and_after_those_it_needs():
    needed = {"test": ["d", "c"], "d": ["b", "c"], "c": ["a"], "b": ["a"], "a": [], "unused": []}
    order = in_order(needed, ["test", "a"], "toy")
    assert sorted(order) == ["a", "b", "c", "d", "test"]
    assert all(order.index(other) < order.index(name) for name in order for other in needed[name])


def test_circles_and_unknown_runs_are_refused():
    with pytest.raises(ValueError, match="toy: runs need each other's checkpoints in a circle: a <- b <- a"):
        in_order({"a": ["b"], "b": ["a"]}, ["a"], "toy")
    with pytest.raises(ValueError, match=r"toy, run a: \{c\} stands for the checkpoint of a run 'c', which does not"):
        in_order({"a": ["c"]}, ["a"], "toy")
