"""A user's own problems and pairs of graphs."""

import pytest
import torch

from theodolite.datamodules import PairFileDataModule

PROBLEM = "2  0 1  2 0   0 3  4 0"


def write(path, text):
    path.write_text(text)
    return str(path)


def test_one_problem_with_or_without_solution(tmp_path):
    path = write(tmp_path / "my.dat", PROBLEM)
    data = PairFileDataModule(path)
    (batch,) = data.predict_dataloader()
    assert batch.first.dense.tolist() == [[[0, 1], [2, 0]]]
    assert batch.sample_id.tolist() == [0]
    assert (data.instance(0).name, data.instance(0).minimize, data.instance(0).best_known) == ("my", True, None)
    write(tmp_path / "my.sln", "2 11  1 2")
    assert PairFileDataModule(path).instance(0).best_known == 11
    assert PairFileDataModule(write(tmp_path / "my.txt", PROBLEM)).instance(0).name == "my"


def test_a_folder_of_problems(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.dat", PROBLEM)
    write(tmp_path / "notes.md", "no problem")
    data = PairFileDataModule(str(tmp_path))
    assert [batch.sample_id.item() for batch in data.predict_dataloader()] == [0, 1]
    assert [data.instance(i).name for i in range(2)] == ["a", "b"]


GML = 'graph [\n node [ id 4 label "x" ]\n node [ id 7 label "y" ]\n edge [ source 4 target 7 ]\n]\n'


def test_a_pair_of_graphs_of_different_sizes_and_formats(tmp_path):
    data = PairFileDataModule(write(tmp_path / "a.gml", GML), write(tmp_path / "b.csv", "p,q\nq,r\n"))
    (batch,) = data.predict_dataloader()
    assert not batch.minimize
    assert batch.first.dense.tolist() == [[[0, 1], [1, 0]]]
    assert batch.second.dense.sum() == 4
    assert batch.second.sparse.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    instance = data.instance(0)
    assert (instance.name, instance.best_known, instance.minimize) == ("a-b", None, False)
    assert list(instance.first_names) == ["x", "y"]
    assert list(instance.second_names) == ["p", "q", "r"]
    assert torch.equal(batch.to("cpu").second.dense, batch.second.dense)


def test_graph6_files_are_matched_line_by_line(tmp_path):
    path = write(tmp_path / "a.g6", "A_\nBw\n")
    data = PairFileDataModule(path, write(tmp_path / "b.g6", "Bw\nBw\n"))
    assert [batch.first.sizes.item() for batch in data.predict_dataloader()] == [2, 3]
    assert [data.instance(i).name for i in range(2)] == ["a-b-1", "a-b-2"]
    with pytest.raises(ValueError, match=r"a\.g6 has 2 graphs, .*c\.g6 has 1; give files with as many"):
        PairFileDataModule(path, write(tmp_path / "c.g6", "Bw\n")).setup()


def test_what_is_ignored_is_counted_once_a_file(tmp_path):
    data = PairFileDataModule(write(tmp_path / "a.txt", "0 1\n1 1\n"), write(tmp_path / "b.txt", "0 1\n"))
    with pytest.warns(UserWarning, match=r"a\.txt: ignored 1 self-loops"):
        data.setup()


def test_wrong_files_are_errors_of_one_line(tmp_path):
    small, large = write(tmp_path / "a.txt", "0 1\n"), write(tmp_path / "b.txt", "0 1\n1 2\n")
    gml = write(tmp_path / "a.gml", GML)
    cases = [
        (
            lambda: PairFileDataModule(large, small).setup(),
            ValueError,
            "b-a: the first graph has 3 nodes, the second 2",
        ),
        (lambda: PairFileDataModule(gml), ValueError, "this is a graph; give the graph to match it with as second"),
        (lambda: PairFileDataModule(small).setup(), ValueError, r"a\.txt, line 1: n = 0"),
        (lambda: PairFileDataModule(str(tmp_path)), FileNotFoundError, r"no \.dat file in this folder"),
        (lambda: PairFileDataModule(str(tmp_path / "no")), FileNotFoundError, r"path='.*no'\): there is no such file"),
        (lambda: PairFileDataModule(small, "no"), FileNotFoundError, r"second='no'\): there is no such file"),
        (lambda: PairFileDataModule(str(tmp_path), small), FileNotFoundError, r"path='.*'\): there is no such file"),
        (lambda: PairFileDataModule(small, large, "xml"), ValueError, "format='xml'"),
    ]
    for make, kind, message in cases:
        with pytest.raises(kind, match=message) as error:
            make()
        assert "\n" not in str(error.value)
