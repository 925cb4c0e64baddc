"""The communities of a user's graph arrive in a CSV file, each node once, on one rank and on two."""

import csv
import os
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from theodolite.callbacks.community_writer import CommunityWriter, community_probabilities
from theodolite.callbacks.prediction_writer import join_parts
from theodolite.datamodules.graph_file import GraphFileDataModule
from theodolite.datamodules.snap_datamodule import SNAPDataModule

SCRIPT = """
import sys

import torch
from pytorch_lightning import LightningModule, Trainer

from theodolite.callbacks.community_writer import CommunityWriter
from theodolite.datamodules.graph_file import GraphFileDataModule


class Degree(LightningModule):
    def predict_step(self, batch, batch_idx):
        degree = torch.bincount(batch.edge_index[0], minlength=batch.num_nodes).double()
        return torch.stack((torch.zeros_like(degree), degree - 2.5), dim=1)


if __name__ == "__main__":
    path, root = sys.argv[1:]
    Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", default_root_dir=root, logger=False,
        callbacks=[CommunityWriter()], enable_progress_bar=False,
    ).predict(Degree(), datamodule=GraphFileDataModule(path, 2), return_predictions=False)
"""


class Degree(LightningModule):
    """Score community 1 by degree - 2.5."""

    def predict_step(self, batch, batch_idx):
        degree = torch.bincount(batch.edge_index[0], minlength=batch.num_nodes).double()
        return torch.stack((torch.zeros_like(degree), degree - 2.5), dim=1)


def predict(tmp_path, writer=None, **kwargs):
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="run", version="one"),
        callbacks=[writer or CommunityWriter()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.predict(Degree(), **kwargs)
    return tmp_path / "run" / "one" / "predictions"


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_graph_with_its_own_names(tmp_path, capsys):
    (tmp_path / "a.csv").write_text('"Salem, MA",b\nb,c\nb,d\n')
    folder = predict(tmp_path, datamodule=GraphFileDataModule(str(tmp_path / "a.csv"), num_classes=2))
    rows = read(folder / "communities.csv")
    assert [row["node"] for row in rows] == ["Salem, MA", "b", "c", "d"]
    assert [row["community"] for row in rows] == ["0", "1", "0", "0"]
    # softmax of (0, degree - 2.5): 1 / (1 + exp(-1.5)) for degree 1, 1 / (1 + exp(-0.5)) for degree 3
    expected = [1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(-0.5))]
    assert [float(row["probability"]) for row in rows[:2]] == pytest.approx(expected, abs=1e-6)
    assert list(rows[0]) == ["node", "community", "probability"]
    assert f"Communities of 1 graph: {folder / 'communities.csv'}" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["communities.csv"]


def test_several_graphs_in_batches_get_a_graph_column(tmp_path):
    graphs = [nx.star_graph(4), nx.path_graph(3), nx.complete_graph(5)]
    data = [
        Data(
            edge_index=torch.tensor(sorted(graph.to_directed().edges())).T,
            num_nodes=len(graph),
            sample_id=torch.tensor([i]),
        )
        for i, graph in enumerate(graphs)
    ]
    folder = predict(tmp_path, CommunityWriter("mine.csv"), dataloaders=DataLoader(data, batch_size=2))
    rows = read(folder / "mine.csv")
    assert [(int(row["graph"]), int(row["node"]), int(row["community"])) for row in rows] == [
        (i, node, int(graph.degree(node) > 2)) for i, graph in enumerate(graphs) for node in sorted(graph)
    ]


def test_a_second_prediction_replaces_the_first_and_leftovers(tmp_path):
    folder = tmp_path / "predictions"
    (folder / ".communities.csv.parts").mkdir(parents=True)
    (folder / ".communities.csv.parts" / "7.csv").write_text("of,a,killed run\n")
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[CommunityWriter()],
        enable_progress_bar=False,
    )
    for text, names in (("1 2\n", ["1", "2"]), ("b c\n", ["b", "c"])):
        (tmp_path / "a.txt").write_text(text)
        trainer.predict(Degree(), datamodule=GraphFileDataModule(str(tmp_path / "a.txt"), num_classes=2))
        assert [row["node"] for row in read(folder / "communities.csv")] == names
    assert [path.name for path in folder.iterdir()] == ["communities.csv"]


def test_snap_predictions_carry_the_ids_of_snap(tmp_path):
    names = [f"com-amazon.{part}" for part in ("ungraph.txt", "top5000.cmty.txt")]
    blocks = [range(100 * b, 100 * b + 4) for b in range(12)]  # 12 cliques, joined pairwise: 66 pairs
    edges = [edge for block in blocks for edge in nx.complete_graph(block).edges()]
    edges += [(100 * a, 100 * b + 1) for a in range(12) for b in range(a)]
    (tmp_path / names[0]).write_text("".join(f"{i} {j}\n" for i, j in edges))
    (tmp_path / names[1]).write_text("".join(" ".join(map(str, block)) + "\n" for block in blocks))
    data = SNAPDataModule(str(tmp_path), name="amazon", test_fraction=0.5, val_fraction=0)
    rows = read(predict(tmp_path, datamodule=data) / "communities.csv")
    pairs = data.dataset("test").instances.pairs.tolist()
    assert len(pairs) == 15  # of 6 communities
    assert len(rows) == 8 * 15
    for i, pair in enumerate(pairs):
        mine = {int(row["node"]) for row in rows if row["graph"] == str(i)}
        assert mine == {node for c in pair for node in blocks[c]}


def test_probabilities_are_the_softmax_maximum():
    probability, community = community_probabilities(torch.tensor([[0.0, np.log(3.0)], [1000.0, 0.0]]))
    assert probability == pytest.approx([0.75, 1.0])
    assert community.tolist() == [1, 0]


def test_parts_are_joined_in_numerical_order(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for i in (10, 9):
        (parts / f"{i}.csv").write_text(f'"n\n{i}",0,1\r\n')
    assert join_parts(parts, tmp_path / "all.csv", ["node", "community", "probability"], "graph") == 2
    assert [(row["graph"], row["node"]) for row in read(tmp_path / "all.csv")] == [("9", "n\n9"), ("10", "n\n10")]


@pytest.mark.parametrize("name", ["communities.txt", "a/b.csv"])
def test_bad_file_names(name):
    with pytest.raises(ValueError, match=r"CommunityWriter\(file_name="):
        CommunityWriter(name)


@pytest.mark.ddp
def test_two_ranks_write_what_one_writes(tmp_path):
    graphs = [nx.gnm_random_graph(n, 2 * n, seed=n) for n in (30, 20, 10)]
    (tmp_path / "a.g6").write_bytes(b"".join(nx.to_graph6_bytes(graph, header=False) for graph in graphs))
    (tmp_path / "run.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "a.g6"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Communities of 3 graphs") == 1
    two = (tmp_path / "predictions" / "communities.csv").read_text()
    one = predict(tmp_path, datamodule=GraphFileDataModule(str(tmp_path / "a.g6"), num_classes=2))
    assert two == (one / "communities.csv").read_text()
    assert len(two.splitlines()) == 1 + 60
