"""SNAP graphs: reading, the published instances, and their splits."""

import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from theodolite.datamodules import snap, snap_datamodule
from theodolite.datamodules.edge_list import compact_ids, parse_integers, simplify
from theodolite.datamodules.snap import (
    community_pairs,
    cut_instances,
    pairs_apart,
    read_community_graph,
    split_pairs,
    summarize,
)
from theodolite.datamodules.snap_datamodule import SNAPDataModule

DATA = Path(os.environ.get("THEODOLITE_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "graphs"
needs_dblp = pytest.mark.skipif(
    not (DATA / "com-dblp.ungraph.txt.gz").exists(), reason=f"com-dblp is not in {DATA} (set THEODOLITE_TEST_DATA)"
)


def make_world(seed=0, n=60, num_communities=16):
    """Draw a graph on scattered ids and overlapping communities, as Python sets."""
    rng = np.random.default_rng(seed)
    ids = (rng.permutation(3 * n)[:n]).tolist()
    edges = {tuple(sorted(pair)) for pair in itertools.combinations(ids, 2) if rng.random() < 0.12}
    used = sorted({node for edge in edges for node in edge})
    communities = [
        set(rng.choice(used, size=rng.integers(3, 11), replace=False).tolist()) for _ in range(num_communities)
    ]
    return edges, communities


def write_world(folder, edges, communities, name="dblp", header="", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        f"com-{name}.ungraph.txt": header + "".join(f"{i}\t{j}\n" for i, j in sorted(edges)),
        f"com-{name}.top5000.cmty.txt": "".join("\t".join(map(str, sorted(c))) + "\n" for c in communities),
    }
    paths = []
    for file_name, text in texts.items():
        path = folder / (file_name + ".gz" * packed)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        paths.append(path)
    return paths


def brute_force_pairs(edges, communities, cap):
    pairs = set()
    for i, j in edges:
        with_i = [
            c for c, members in enumerate(communities) if i in members and j not in members and len(members) <= cap
        ]
        with_j = [
            c for c, members in enumerate(communities) if j in members and i not in members and len(members) <= cap
        ]
        if with_i and with_j:
            largest = [max(group, key=lambda c: (len(communities[c]), -c)) for group in (with_i, with_j)]
            pairs.add(tuple(sorted(largest)))
    return sorted(pairs)


@pytest.mark.parametrize(("seed", "cap"), [(0, 100), (1, 100), (2, 7), (3, 2)])
def test_pairs_agree_with_the_rule_spelled_out(tmp_path, seed, cap):
    edges, communities = make_world(seed)
    graph = read_community_graph(*write_world(tmp_path, edges, communities))
    assert community_pairs(graph, cap).tolist() == [list(pair) for pair in brute_force_pairs(edges, communities, cap)]


@pytest.mark.parametrize("chunk", [7, 4_000_000])
def test_instances_are_the_induced_subgraphs(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(snap, "_CHUNK", chunk)
    edges, communities = make_world()
    graph = read_community_graph(*write_world(tmp_path, edges, communities))
    pairs = community_pairs(graph, 100)
    instances = cut_instances(graph, pairs)
    assert len(instances) == len(pairs) > 20
    seen_labels = set()
    for i, (a, b) in enumerate(pairs.tolist()):
        ids = graph.node_ids[instances.nodes[instances.node_ptr[i] : instances.node_ptr[i + 1]]].tolist()
        assert ids == sorted(communities[a] | communities[b])
        labels = [2 if node in communities[a] & communities[b] else int(node in communities[b]) for node in ids]
        assert instances.labels[instances.node_ptr[i] : instances.node_ptr[i + 1]].tolist() == labels
        seen_labels |= set(labels)
        local = instances.edges[:, instances.edge_ptr[i] : instances.edge_ptr[i + 1]].T.tolist()
        expected = [
            [x, y]
            for x, y in itertools.product(range(len(ids)), repeat=2)
            if tuple(sorted((ids[x], ids[y]))) in edges and x != y
        ]
        assert local == expected
    assert seen_labels == {0, 1, 2}


def test_best_single_label_of_a_hand_sized_case(tmp_path):
    # C1 = {0, 1, 2, 3}, C2 = {3, 4, 5}: labels 0 0 0 2 1 1, so 3 of 6; the edge (0, 4) crosses
    edges = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 4)}
    graph = read_community_graph(*write_world(tmp_path, edges, [{0, 1, 2, 3}, {3, 4, 5}]))
    pairs = community_pairs(graph, 4)
    assert pairs.tolist() == [[0, 1]]
    assert summarize(cut_instances(graph, pairs)) == (1, 6.0, 12.0, 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_splits_share_no_community(seed):
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, 60, (200, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    splits = split_pairs(pairs, 0.25, 0.3, seed)
    for one, other in itertools.combinations(splits.values(), 2):
        assert len(one)
        assert not set(one.ravel()) & set(other.ravel())
    whole = {tuple(pair) for pair in pairs.tolist()}
    assert all(tuple(pair) in whole for part in splits.values() for pair in part.tolist())
    without_validation = split_pairs(pairs, 0.0, 0.3, seed)
    assert np.array_equal(without_validation["test"], splits["test"])
    assert len(without_validation["val"]) == 0
    assert len(without_validation["train"]) > len(splits["train"])
    assert not np.array_equal(split_pairs(pairs, 0.25, 0.3, seed + 1)["test"], splits["test"])


def test_pairs_apart_share_no_node(tmp_path):
    edges, communities = make_world()
    graph = read_community_graph(*write_world(tmp_path, edges, communities))
    pairs = community_pairs(graph, 100)
    others, candidates = pairs[:1], pairs[1:]
    kept = {tuple(pair) for pair in pairs_apart(graph, candidates, others).tolist()}
    taken = communities[others[0, 0]] | communities[others[0, 1]]
    assert kept == {(a, b) for a, b in candidates.tolist() if not (communities[a] | communities[b]) & taken}
    assert kept


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", ["", "# Undirected graph: com-dblp\n# FromNodeId\tToNodeId\n"])
def test_reading_with_and_without_header_and_gzip(tmp_path, header, packed):
    edges, communities = make_world()
    graph = read_community_graph(*write_world(tmp_path, edges, communities, header=header, packed=packed))
    rows, columns = graph.adjacency.nonzero()
    assert {(a, b) for a, b in zip(graph.node_ids[rows].tolist(), graph.node_ids[columns].tolist(), strict=True)} == {
        pair for i, j in edges for pair in ((i, j), (j, i))
    }
    assert [
        set(graph.node_ids[graph.communities[[c]].indices].tolist()) for c in range(len(communities))
    ] == communities


def test_loops_repeats_and_a_member_listed_twice_do_not_count(tmp_path):
    edge_path, community_path = tmp_path / "e.txt", tmp_path / "c.txt"
    edge_path.write_text("1 2\n2 1\n1 2\n3 3\n2 3\n")
    community_path.write_text("2 1 2\n3\n")
    graph = read_community_graph(edge_path, community_path)
    assert graph.adjacency.toarray().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert graph.communities.toarray().tolist() == [[1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("edge_text", "community_text", "message"),
    [
        (b"1 2\n3 x\n", b"1\n", r"e\.txt, line 2: '3 x' is malformed"),
        (b"# h\n1 2\n\n3 -4\n", b"1\n", r"e\.txt, line 4: '3 -4' is malformed: only integers >= 0"),
        (b"1 2\n1 2 3\n", b"1\n", r"e\.txt, line 2: 3 numbers where two"),
        (b"1 2\n1\n2\n", b"1\n", r"e\.txt, line 2: 1 numbers where two"),
        (b"1 9999999999999999999\n", b"1\n", r"e\.txt, line 1: .* at most 18 digits"),
        (b"# nothing\n", b"1\n", r"e\.txt: there are no edges"),
        (b"1 2\n", b"", r"c\.txt: there are no communities"),
        (b"1 2\n", b"1\n\n2 7\n", r"c\.txt, line 3: node 7 is not in the graph .*e\.txt"),
        (b"1 2\n", b"1 b\n", r"c\.txt, line 1: '1 b' is malformed"),
        (b"1 2\n", b"1 -2\n", r"c\.txt, line 1: '1 -2' is malformed"),
        (gzip.compress(b"1 2\n" * 100, mtime=0)[:-9], b"1\n", r"e\.txt: the gzip data are damaged"),
    ],
)
def test_bad_files_give_one_clear_line(tmp_path, edge_text, community_text, message):
    edge_path, community_path = tmp_path / "e.txt", tmp_path / "c.txt"
    edge_path.write_bytes(edge_text)
    community_path.write_bytes(community_text)
    with pytest.raises(ValueError, match=message) as error:
        read_community_graph(edge_path, community_path)
    assert "\n" not in str(error.value)


def test_missing_file_and_plain_text_named_gz(tmp_path):
    (tmp_path / "e.txt.gz").write_text("1 2\n")
    with pytest.raises(ValueError, match="not gzip"):
        read_community_graph(tmp_path / "e.txt.gz", tmp_path / "c.txt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_community_graph(tmp_path / "absent.txt", tmp_path / "c.txt")


def test_parse_integers_agrees_with_python():
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 10 ** int(rng.integers(1, 18)), rng.integers(0, 6)).tolist() for _ in range(200)]
    text = "\r\n".join("\t ".join(map(str, row)) for row in rows)
    values, counts = parse_integers(text.encode(), "t")
    assert values.tolist() == [value for row in rows for value in row]
    assert counts.tolist() == [len(row) for row in rows]


@pytest.mark.parametrize("scale", [1, 10**12])
def test_compact_ids_agrees_with_numpy(scale):
    ids = np.random.default_rng(0).integers(0, 50, 200) * scale
    for ours, theirs in zip(compact_ids(ids), np.unique(ids, return_inverse=True), strict=True):
        assert np.array_equal(ours, theirs)


def test_simplify_counts_what_it_drops():
    graph = simplify(np.array([0, 1, 2, 2, 0]), np.array([1, 0, 2, 1, 1]), 3)
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert (graph.loops, graph.repeated) == (1, 2)


@pytest.fixture
def world(tmp_path):
    edges, communities = make_world(seed=4, n=120, num_communities=40)
    write_world(tmp_path, edges, communities)
    return tmp_path, edges, communities


def test_samples_are_the_instances_in_random_order(world):
    folder, edges, communities = world
    data = SNAPDataModule(str(folder), test_fraction=0.5)
    data.setup()
    dataset = data.dataset("test")
    swaps, moved = 0, 0
    for i, (a, b) in enumerate(dataset.instances.pairs.tolist()):
        sample = dataset[i]
        names = [int(name) for name in data.node_names(i)]
        assert set(names) == communities[a] | communities[b]
        inside = [[node in communities[a], node in communities[b]] for node in names]
        plain = [2 if all(x) else int(x[1]) for x in inside]
        swapped = [2 if all(x) else int(x[0]) for x in inside]
        assert sample.y.tolist() in (plain, swapped)
        swaps += sample.y.tolist() == swapped
        moved += names != sorted(names)
        pairs = sample.edge_index.T.tolist()
        assert pairs == sorted(pairs)
        assert {tuple(sorted((names[x], names[y]))) for x, y in pairs} == {
            edge for edge in edges if set(edge) <= set(names)
        }
        assert len(pairs) == 2 * len({tuple(sorted(pair)) for pair in pairs})
        assert sample.sample_id.tolist() == [i]
        assert sample.num_nodes == len(names)
    n = len(dataset)
    assert abs(swaps - n / 2) < 4 * np.sqrt(n / 4)  # binomial, 4 standard deviations
    assert moved == n


def test_samples_depend_on_seed_split_and_index_alone(world):
    folder, _, _ = world
    one, two, other = (SNAPDataModule(str(folder), val_fraction=0, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.dataset("test")[5].edge_index, two.dataset("test")[5].edge_index)
    assert torch.equal(one.dataset("test")[5].y, two.dataset("test")[5].y)
    assert not np.array_equal(one.dataset("test").instances.pairs, other.dataset("test").instances.pairs)
    orders = [[batch.sample_id.tolist() for batch in data.train_dataloader()] for data in (one, two)]
    assert orders[0] == orders[1]
    assert sorted(i for batch in orders[0] for i in batch) == list(range(len(one.dataset("train"))))


def test_loaders_and_batches(world):
    folder, _, _ = world
    data = SNAPDataModule(str(folder), test_fraction=0.4, val_fraction=0.4, batch_size=3)
    data.prepare_data()
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        assert (
            sum(batch.num_graphs for batch in batches) == len(data.dataset(split)) == data.statistics(split).instances
        )
        assert batches[0].y.dtype == batches[0].edge_index.dtype == torch.int64
        key = batches[0].edge_index[0] * batches[0].num_nodes + batches[0].edge_index[1]
        assert (key.diff() > 0).all()
    assert data.num_classes == 3
    assert data.label_permutations == [[0, 1, 2], [1, 0, 2]]
    assert SNAPDataModule(str(folder), val_fraction=0).val_dataloader() == []


def test_disjoint_nodes(world):
    folder, _, _ = world
    data = SNAPDataModule(str(folder), max_community_size=5, test_fraction=0.4, val_fraction=0, disjoint_nodes=True)
    plain = SNAPDataModule(str(folder), max_community_size=5, test_fraction=0.4, val_fraction=0)
    assert not set(data.dataset("test").instances.nodes) & set(data.dataset("train").instances.nodes)
    assert set(plain.dataset("test").instances.nodes) & set(plain.dataset("train").instances.nodes)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "orkut"},
        {"test_fraction": 0},
        {"test_fraction": 1.0},
        {"val_fraction": 1},
        {"batch_size": 0},
        {"seed": -1},
        {"max_community_size": 0},
        {"num_workers": -1},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"SNAPDataModule\\({next(iter(arguments))}="):
        SNAPDataModule(**arguments)


def test_a_cap_without_instances_says_so(world):
    with pytest.raises(ValueError, match="train split has no pair of communities of at most 1 nodes"):
        SNAPDataModule(str(world[0]), max_community_size=1).setup()


def test_download_writes_whole_files_or_none(tmp_path, monkeypatch):
    edges, communities = make_world(seed=4, n=120, num_communities=40)
    write_world(tmp_path / "server", edges, communities, name="amazon", packed=True)
    monkeypatch.setattr(snap_datamodule, "URL", (tmp_path / "server").as_uri())
    data = SNAPDataModule(str(tmp_path / "mine"), name="amazon")
    data.prepare_data()
    assert len(data.dataset("train")) > 0
    assert len(list((tmp_path / "mine").iterdir())) == 2

    monkeypatch.setattr(snap_datamodule, "URL", (tmp_path / "nowhere").as_uri())
    absent = SNAPDataModule(str(tmp_path / "other"), name="youtube")
    with pytest.raises(FileNotFoundError, match=r"com-youtube\.ungraph\.txt.*other.*nowhere.*put it there") as error:
        absent.prepare_data()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "other").exists()


@needs_dblp
def test_dblp_has_the_published_sizes():
    data = SNAPDataModule(str(DATA), val_fraction=0)
    data.prepare_data()
    train, test = data.dataset("train").instances, data.dataset("test").instances
    assert not set(train.pairs.ravel()) & set(test.pairs.ravel())
    # published (arXiv:1705.08415, Table 2): 2831 / 510 pairs, V = 26, E = 164; a random split moves them by a few %
    assert abs(len(train) - 2831) < 200
    assert abs(len(test) - 510) < 60
    whole = np.concatenate((train.pairs, test.pairs))
    assert len(np.unique(whole, axis=0)) == len(whole)
    statistics = data.statistics("train")
    assert abs(statistics.mean_nodes - 26) < 1.5
    assert abs(statistics.mean_edges - 164) < 10
    assert abs(statistics.best_single_label - 0.63) < 0.02


@needs_dblp
def test_dblp_instances_have_the_published_means_before_the_split():
    graph = read_community_graph(DATA / "com-dblp.ungraph.txt.gz", DATA / "com-dblp.top5000.cmty.txt")
    assert graph.adjacency.shape[0] == 317_080
    assert graph.adjacency.nnz == 2 * 1_049_866
    statistics = summarize(cut_instances(graph, community_pairs(graph, snap_datamodule.MAX_COMMUNITY_SIZE["dblp"])))
    assert round(statistics.mean_nodes) == 26
    assert round(statistics.mean_edges) == 164
