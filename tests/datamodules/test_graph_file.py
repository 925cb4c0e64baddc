"""A user's graph files: formats, names, and one clear line for bad ones."""

import gzip
import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from theodolite.datamodules.graph_file import GraphFileDataModule
from theodolite.datamodules.graph_formats import read_graphs

DATA = Path(os.environ.get("THEODOLITE_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_graphs(path)


def named_edges(graph):
    names = [str(name) for name in graph.names]
    pairs = graph.edge_index.T.tolist()
    assert pairs == sorted(pairs)
    assert all([y, x] in pairs for x, y in pairs[:50])
    return {frozenset((names[x], names[y])) for x, y in pairs}


def edge_set(graph):
    return {frozenset(map(str, edge)) for edge in graph.edges() if edge[0] != edge[1]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "1 2\n2 3\n"),
        ("a.tsv", "# comment\n1\t2\n\n  % another\n2\t3"),
        ("a.csv", "1,2\r\n2, 3\r\n"),
        ("a.edges", "1 2 7\n2 3 7\n"),
        ("a.txt", "1 2 0.5\n2 3 1e-3\n"),
        ("a.csv", "source,target\n1,2\n2,3\n"),
        ("a.csv", "id_1,id_2\n1,2\n2,3\n"),
        ("a.csv", "From,To,Weight\n1,2,0.5\n2,3,1\n"),
        ("a.txt", b"\xef\xbb\xbf1 2\n2 3\n"),
        ("a.txt.gz", gzip.compress(b"1 2\n2 3\n", mtime=0)),
        ("a.TXT", "1 2\n2 3\n3 2\n2 2\n"),
    ],
)
def test_edge_lists_of_the_same_path_graph(tmp_path, name, content):
    (graph,) = read(tmp_path, name, content)
    assert [str(node) for node in graph.names] == ["1", "2", "3"]
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


@pytest.mark.parametrize(
    ("name", "content", "edges"),
    [
        ("a.txt", "ann bob\nbob  c#1\n", {("ann", "bob"), ("bob", "c#1")}),
        ("a.csv", '"New York",Boston\nBoston,"Salem, MA"\n', {("New York", "Boston"), ("Boston", "Salem, MA")}),
        ("a.csv", "Source,Target\nann,bob\n", {("ann", "bob")}),
        ("a.txt", "ann bob 2\nbob 7\n", {("ann", "bob"), ("bob", "7")}),
        ("a.txt", "é ü\n-1 é\n", {("é", "ü"), ("-1", "é")}),
        ("a.txt", "12345678901234567890 2\na 2\n", {("12345678901234567890", "2"), ("a", "2")}),
    ],
)
def test_edge_lists_of_words(tmp_path, name, content, edges):
    (graph,) = read(tmp_path, name, content)
    assert named_edges(graph) == {frozenset(edge) for edge in edges}


def test_a_random_edge_list_agrees_with_networkx(tmp_path):
    graph = nx.gnm_random_graph(300, 900, seed=0)
    nx.write_edgelist(graph, tmp_path / "a.txt", data=False)
    words = nx.relabel_nodes(graph, {node: f"n{node}" for node in graph})
    nx.write_edgelist(words, tmp_path / "b.txt", data=False)
    assert named_edges(read_graphs(tmp_path / "a.txt")[0]) == edge_set(graph)
    assert named_edges(read_graphs(tmp_path / "b.txt")[0]) == edge_set(words)


def test_what_is_ignored_is_counted(tmp_path):
    (graph,) = read(tmp_path, "a.csv", "source,target,w\n1,2,5\n2,1,5\n1,2,5\n3,3,5\n")
    assert graph.ignored == [
        "the first line 'source,target,w' (a header)",
        "columns after the second",
        "1 self-loops",
        "2 repeated or reversed edges",
    ]
    assert len(graph.names) == 3
    nodes, edges = "node [ id 1 ] node [ id 2 ]", "edge [ source 1 target 2 weight 3 ] edge [ source 1 target 2 ]"
    (graph,) = read(tmp_path, "a.gml", f"graph [ directed 1 {nodes} {edges} ]")
    assert graph.ignored == ["edge directions", "weights of 1 edges", "1 repeated or reversed edges"]


def test_gml_names_are_labels_where_they_are_all_different(tmp_path):
    text = 'graph [ node [ id 5 label "x" ] node [ id 3 label "{}" ] edge [ source 3 target 5 ] ]'
    assert read(tmp_path, "a.gml", text.format("y z"))[0].names == ["x", "y z"]
    assert read(tmp_path, "a.gml", text.format("x"))[0].names == ["5", "3"]


@pytest.mark.parametrize("header", [b"", b">>graph6<<"])
def test_graph6_holds_several_graphs(tmp_path, header):
    expected = [nx.petersen_graph(), nx.path_graph(70), nx.empty_graph(3)]
    content = header + b"\n".join(nx.to_graph6_bytes(graph, header=False).strip() for graph in expected)
    graphs = read(tmp_path, "a.g6", content)
    assert [named_edges(graph) for graph in graphs] == [edge_set(graph) for graph in expected]
    assert [len(graph.names) for graph in graphs] == [10, 70, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "the file is empty"),
        ("a.txt", "# only a comment\n", "there are no edges"),
        ("a.csv", "source,target\n", "there are no edges"),
        ("a.txt", "1 2\n\n3\n", "line 3: '3' is malformed"),
        ("a.txt", "1 2\n1 2 3\n", "line 2: '1 2 3' is malformed"),
        ("a.txt", "a b\nc\n", "line 2: 'c' is malformed"),
        ("a.csv", "a,b\n\nc\n", "line 3: 'c' is malformed"),
        ("a.csv", "a,b\nc,\n", "line 2: 'c,' is malformed"),
        ("a.txt", "1;2\n", "line 1: '1;2' is malformed"),
        ("a.txt", b"a b\n\xff\xfe c\n", "line 2: this is not UTF-8"),
        ("a.txt.gz", gzip.compress(b"1 2\n" * 50, mtime=0)[:-9], "gzip data are damaged"),
        ("a.txt.gz", "1 2\n", "not gzip"),
        ("a.net", "1 2\n", "the suffix '.net' tells no format"),
        ("a.gml", "hello", "no GML graph"),
        ("a.gml", "graph [ node [ id 1 ", "no GML graph"),
        ("a.gml", "graph [ node [ id 1 ] edge [ source 1 target 2 ] ]", "no GML graph .*undefined target 2"),
        ("a.gml", "graph [ ]", "no nodes"),
        ("a.g6", "A_\nZZZZ\n", "line 2: this is no graph6 graph"),
        ("a.g6", "?\n", "line 1: the graph has no nodes"),
    ],
)
def test_bad_files_give_one_clear_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, name, content)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_datamodule_serves_each_graph_with_its_names(tmp_path):
    (tmp_path / "a.csv").write_text("ann,bob\nbob,cid\ncid,cid\n")
    data = GraphFileDataModule(str(tmp_path / "a.csv"), num_classes=2)
    with pytest.warns(UserWarning, match=r"ignored 1 self-loops; the graph is taken as undirected"):
        data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch.num_graphs == 1
    assert batch.num_nodes == 3
    assert batch.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert batch.edge_index.dtype == torch.int64
    assert batch.sample_id.tolist() == [0]
    assert list(data.node_names(0)) == ["ann", "bob", "cid"]
    assert data.num_classes == 2


def test_format_overrides_the_suffix(tmp_path):
    (tmp_path / "a.data").write_text("1 2\n")
    data = GraphFileDataModule(str(tmp_path / "a.data"), num_classes=2, format="edges")
    assert len(list(data.predict_dataloader())) == 1


def test_bad_arguments_are_found_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"GraphFileDataModule\(path=.*absent.csv'\): there is no such file"):
        GraphFileDataModule(str(tmp_path / "absent.csv"), num_classes=2)
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"GraphFileDataModule\(num_classes=1\): it must be >= 2"):
        GraphFileDataModule(str(tmp_path / "a.csv"), num_classes=1)
    with pytest.raises(ValueError, match=r"GraphFileDataModule\(format='xml'\)"):
        GraphFileDataModule(str(tmp_path / "a.csv"), num_classes=2, format="xml")


@pytest.mark.skipif(not (DATA / "graphs" / "karate.gml").exists(), reason=f"no graphs in {DATA} (THEODOLITE_TEST_DATA)")
def test_real_files():
    folder = DATA / "graphs"
    karate = read_graphs(folder / "karate.gml")[0]
    zachary = nx.relabel_nodes(nx.karate_club_graph(), {i: i + 1 for i in range(34)})
    assert named_edges(karate) == edge_set(zachary)
    for name, nodes, edges in (("polbooks", 105, 441), ("dolphins", 62, 159), ("football", 115, 613)):
        graph = read_graphs(folder / f"{name}.gml")[0]
        assert (len(graph.names), graph.edge_index.shape[1]) == (nodes, 2 * edges)
    email = read_graphs(folder / "email-Eu-core.txt")[0]
    expected = nx.read_edgelist(folder / "email-Eu-core.txt", nodetype=int)
    assert named_edges(email) == edge_set(expected)
    assert np.array_equal(email.names, sorted(expected))
