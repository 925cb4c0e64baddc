import copy
import math

import pytest
import yaml

from theodolite.scripts.claims import CLAIMS, Row, Target, judge, load_claim, load_claims
from theodolite.scripts.measure import compose
from theodolite.scripts.reproduce import _needed, _plan

CLAIM = {
    "id": "sbm",
    "title": "A claim",
    "source": {"paper": "arXiv 1705.08415", "table": "Table 1"},
    "budget_minutes": 3,
    "seeds": [0, 4],
    "runs": {
        "lgnn": {"config": "lgnn.yaml", "overrides": ["--trainer.max_epochs", 2]},
        "bp": {"config": "lgnn.yaml", "command": "test"},
    },
    "rows": [
        {
            "run": "lgnn",
            "metric": "test/overlap",
            "setting": "LGNN",
            "published": 0.207,
            "published_error": 0.015,
            "target": {"above": 0.207, "above_all": ["bp:test/overlap", "test/overlap_laplacian"]},
        },
        {"run": "bp", "metric": "test/overlap", "setting": "belief propagation", "published": "curve"},
    ],
}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "lgnn.yaml").write_text("model: {}\n")

    def _write(content, name="sbm.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return _write


def test_claim_with_several_runs_is_read_whole(write, tmp_path):
    claim = load_claim(write(CLAIM))
    assert (claim.id, claim.seeds, claim.source) == ("sbm", (0, 4), "arXiv 1705.08415, Table 1")
    assert claim.runs["lgnn"].overrides == ("--trainer.max_epochs", "2")
    assert claim.runs["bp"].command == "test"
    assert claim.runs["bp"].config == tmp_path / "lgnn.yaml"
    assert claim.rows[0].target == Target(above=0.207, above_all=("bp:test/overlap", "test/overlap_laplacian"))
    assert claim.rows[1].target is None


def test_single_config_makes_one_run_that_rows_need_not_name(write):
    content = {key: value for key, value in CLAIM.items() if key not in ("runs", "seeds")}
    content |= {"config": "lgnn.yaml", "rows": [{"metric": "test/accuracy", "setting": "GNN"}]}
    claim = load_claim(write(content))
    assert claim.seeds == (0, 1, 2)
    assert [row.run for row in claim.rows] == list(claim.runs)
    assert claim.runs["main"].command == "fit"


def _change(path, value):
    def edit(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_change(["gpu"], "yes"), "sbm.yaml, gpu is 'yes' but must be true or false"),
        (_change(["runs", "bp", "overrides"], ["{net}"]), "run bp: {net} stands for the checkpoint of a run 'net'"),
        (_change(["runs", "bp", "overrides"], ["{bp}"]), "in a circle: bp <- bp"),
        (_change(["runs", "seed"], {"config": "lgnn.yaml"}), "{seed} is the seed"),
        (_change(["title"], None), "sbm.yaml misses title"),
        (_change(["titel"], "x"), "has unknown titel"),
        (_change(["id"], "other"), "must be the file's name, 'sbm'"),
        (_change(["source"], "arXiv"), "source is 'arXiv' but must be a mapping with paper, table"),
        (_change(["seeds"], [0, 0]), "must list distinct integers >= 0"),
        (_change(["seeds"], [True]), "must list distinct integers >= 0"),
        (_change(["budget_minutes"], "long"), "budget_minutes is 'long' but must be a number"),
        (_change(["config"], "lgnn.yaml"), "give either config .* or runs"),
        (_change(["overrides"], []), "must stand inside each of runs"),
        (_change(["runs", "bp", "command"], "predict"), "must be one of fit, validate, test"),
        (_change(["runs", "bp", "seed"], 1), "run bp has unknown seed"),
        (_change(["rows"], []), "rows is empty"),
        (_change(["rows", 1, "run"], None), "row 2: run is missing but must be one of lgnn, bp"),
        (_change(["rows", 1, "run"], "gnn"), "run 'gnn' does not exist; the runs are lgnn, bp"),
        (_change(["rows", 1, "metric"], None), "row 2 misses metric"),
        (_change(["rows", 1, "published"], [1]), "published is .1. but must be a number or text"),
        (_change(["rows", 0, "target"], {}), "give at_least, above"),
        (_change(["rows", 0, "target"], {"above_all": []}), "give at_least, above"),
        (_change(["rows", 0, "target"], {"at_least": 0.5, "minus": 0.1}), "give at_least, above"),
        (_change(["rows", 0, "target"], {"at_least": 0.5, "times": 2}), r"at_least_best_of \(with times, minus\)"),
        (_change(["rows", 0, "target"], {"at_least": "0.5"}), "at_least is '0.5' but must be a number"),
        (_change(["rows", 0, "target"], {"atleast": 0.5}), "has unknown atleast"),
        (_change(["rows", 0, "target"], {"above_all": ["gat:test/overlap"]}), "run 'gat' does not exist"),
    ],
)
def test_malformed_claim_is_refused_in_one_line(write, edit, words):
    content = copy.deepcopy(CLAIM)
    edit(content)
    with pytest.raises(ValueError, match=words) as caught:
        load_claim(write(content))
    assert "\n" not in str(caught.value)


def test_invalid_yaml_is_refused_in_one_line(write):
    with pytest.raises(ValueError, match=r"sbm\.yaml is no valid YAML") as caught:
        load_claim(write("id: [unclosed\n"))
    assert "\n" not in str(caught.value)


def test_absent_config_names_the_places_looked_in(write, tmp_path):
    content = copy.deepcopy(CLAIM)
    content["runs"]["bp"]["config"] = "absent.yaml"
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent.yaml")):
        load_claim(write(content))


def test_every_shipped_claim_loads():
    assert len(load_claims()) == len(list(CLAIMS.glob("*.yaml")))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(path.stem for path in CLAIMS.glob("*.yaml")))
def test_the_command_line_takes_every_run_of_every_shipped_claim(name):
    claim = load_claims()[name]
    assert set(_plan(claim, _needed(claim), compose)) == set(claim.runs)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (None, 0.5, "shown"),
        (None, None, "failed"),
        (Target(at_least=0.5), 0.5, "met"),
        (Target(at_least=0.5), 0.4999, "missed"),
        (Target(at_least=0.5), math.nan, "missed"),
        (Target(above=0.5), 0.5, "missed"),
        (Target(at_least_best_of=("a", "bp:b"), minus=0.02), 0.58, "met"),
        (Target(at_least_best_of=("a", "bp:b"), minus=0.02), 0.5799, "missed"),
        (Target(at_least_best_of=("a", "bp:b"), times=1.5), 0.9, "met"),
        (Target(at_least_best_of=("a", "bp:b"), times=1.5), 0.899, "missed"),
        (Target(at_least_best_of=("a", "bp:b"), times=1.5, minus=0.1), 0.8, "met"),
        (Target(at_least_best_of=("a", "absent")), 0.9, "failed"),
        (Target(above_all=("a",), above=0.207), 0.3, "missed"),
        (Target(above_all=("a",), above=0.207), 0.41, "met"),
        (Target(above_all=("nan",)), 0.9, "missed"),
    ],
)
def test_verdict_follows_the_target_unrounded(target, value, verdict):
    measured = {("main", "a"): 0.4, ("bp", "b"): 0.6, ("main", "nan"): math.nan}
    if value is not None:
        measured["main", "test/overlap"] = value
    row = Row(run="main", metric="test/overlap", setting="s", target=target)
    assert judge(row, measured)[0] == verdict


def test_target_in_words_names_its_numbers():
    target = Target(at_least_best_of=("a", "b"), minus=0.02, above=0.207)
    row = Row(run="main", metric="m", setting="s", target=target)
    words = judge(row, {("main", "m"): 1.0, ("main", "a"): 0.5, ("main", "b"): 0.25})[1]
    assert words == "> 0.207 and >= best baseline 0.500 - 0.02"
