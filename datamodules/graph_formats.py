"""Read a user's graph from an edge list, GML or graph6 file."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import networkx as nx
import numpy as np
from torch import Tensor

from .edge_list import IntArray, blank_comments, compact_ids, find_words, parse_integers, read_bytes, simplify

Format = Literal["auto", "edges", "gml", "graph6"]

_FORMATS: dict[str, Format] = {
    ".txt": "edges",
    ".csv": "edges",
    ".tsv": "edges",
    ".edges": "edges",
    ".edgelist": "edges",
    ".gml": "gml",
    ".g6": "graph6",
    ".graph6": "graph6",
}

#: First lines (in lower case) that are no edge. Over a line of two integers any two words are a header.
_HEADERS = {(b"source", b"target"), (b"src", b"dst"), (b"from", b"to"), (b"node1", b"node2")}

_NUMERIC = b"0123456789 \t\r\n,"
_GML_GRAPH = re.compile(r"^\s*graph\s*\[", re.MULTILINE)


class NamedGraph(NamedTuple):
    """An undirected simple graph, the names of its nodes, and what was ignored in the file.

    Attributes:
        edge_index: int64 (2, E), both directions, sorted by (row, column).
        names: Name of each node, in the file's own words; an increasing int64 array for a list of integers.
        ignored: What was left out, e.g. ``"2 self-loops"``; empty if nothing was.
    """

    edge_index: Tensor
    names: Sequence[str] | IntArray
    ignored: list[str]


class _Parsed(NamedTuple):
    edges: IntArray  # (m, 2), nodes numbered from 0
    names: Sequence[str] | IntArray
    extra: bool  # whether there were further columns


def detect_format(path: Path) -> Format:
    """Tell a file's format by its suffix, before ``.gz`` if it ends so.

    Raises:
        ValueError: If the suffix is not known.
    """
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix not in _FORMATS:
        msg = (
            f"{path}: the suffix {suffix!r} tells no format; rename the file to one of {' '.join(_FORMATS)} or set "
            "format to edges, gml or graph6."
        )
        raise ValueError(msg)
    return _FORMATS[suffix]


def read_graphs(path: Path, file_format: Format = "auto") -> list[NamedGraph]:
    """Read the graphs of a file; only graph6 files hold more than one.

    An edge list has one edge on each line, two node names (integers or words) separated by blanks, tabs or a comma;
    ``#`` and ``%`` start a comment line, a first line like ``source,target`` is a header, and columns after the second
    (weights) are ignored. Directions, weights, self-loops and repeated edges are ignored, and counted in ``ignored``.
    Every format may be gzipped. A million edges take about 1 s between integers, 4 s between words.

    Args:
        path: The file.
        file_format: ``auto`` decides by the suffix: .txt .csv .tsv .edges .edgelist, .gml, .g6 .graph6.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is unknown, or the file is empty, damaged or malformed; the message names the file
            and, where there is one, the line.
    """
    if file_format == "auto":
        file_format = detect_format(path)
    data = read_bytes(path)
    if not data.strip():
        msg = f"{path}: the file is empty; give a file with at least one edge."
        raise ValueError(msg)
    if file_format == "graph6":
        return parse_graph6(data, str(path))
    return [parse_gml(data, str(path)) if file_format == "gml" else parse_edges(data, str(path))]


def parse_edges(data: bytes, source: str) -> NamedGraph:
    """Parse an edge list, see :func:`read_graphs`.

    Args:
        data: The text.
        source: Name of the file, for messages.

    Raises:
        ValueError: If there is no edge or, naming file and line, if a line is malformed.
    """
    data, header = _blank_header(blank_comments(data.removeprefix(b"\xef\xbb\xbf")))
    if not data.translate(None, _NUMERIC):
        edges, names, extra = _parse_numbers(data, source)
    elif b"," in _first_lines(data)[0]:
        edges, names, extra = _parse_cells(data, source)
    else:
        edges, names, extra = _parse_words(data, source)
    if not len(edges):
        msg = f"{source}: there are no edges in it; give a file with two node names on each line."
        raise ValueError(msg)
    ignored = [f"the first line {header!r} (a header)"] * bool(header) + ["columns after the second"] * extra
    return _name(edges, names, ignored, source)


def parse_gml(data: bytes, source: str) -> NamedGraph:
    """Parse a GML file; nodes are named by ``label`` where all have one, each its own, else by ``id``.

    Args:
        data: The text.
        source: Name of the file, for messages.

    Raises:
        ValueError: If the text is no GML or the graph has no node.
    """
    text = _decode(data, source)
    if "multigraph" not in text:
        text = _GML_GRAPH.sub("graph [\nmultigraph 1\n", text, count=1)  # so that repeated edges are read, too
    try:
        graph = nx.parse_gml(text.split("\n"), label="id")
    except (nx.NetworkXError, ValueError, TypeError) as error:
        reason = str(error).split("\n")[0]
        msg = f"{source}: this is no GML graph ({reason}); correct the file."
        raise ValueError(msg) from None
    labels = [str(label) for _, label in graph.nodes(data="label") if label is not None]
    names = labels if len(set(labels)) == len(graph) else [str(node) for node in graph]
    weighted = sum("weight" in data or "value" in data for *_, data in graph.edges(data=True))
    ignored = ["edge directions"] * graph.is_directed() + [f"weights of {weighted} edges"] * (weighted > 0)
    index = {node: i for i, node in enumerate(graph)}
    ends = [index[node] for edge in graph.edges() for node in edge[:2]]
    return _name(np.array(ends, np.int64).reshape(-1, 2), names, ignored, source)


def parse_graph6(data: bytes, source: str) -> list[NamedGraph]:
    """Parse a graph6 file, one graph on each line; the nodes are named 0, 1, ...

    Args:
        data: The text, with or without the ``>>graph6<<`` header.
        source: Name of the file, for messages.

    Raises:
        ValueError: Naming file and line, if a line is no graph6.
    """
    graphs = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            graph = nx.from_graph6_bytes(line.strip())
        except (nx.NetworkXError, ValueError, IndexError) as error:
            msg = f"{source}, line {number}: this is no graph6 graph ({error}); correct the file."
            raise ValueError(msg) from None
        edges = np.array(graph.edges(), np.int64).reshape(-1, 2)
        graphs.append(_name(edges, np.arange(len(graph)), [], f"{source}, line {number}"))
    return graphs


def _first_lines(data: bytes) -> list[bytes]:
    return re.findall(rb"[^\n]*[^\s][^\n]*", data[:10_000])[:2] or [b""]


def _blank_header(data: bytes) -> tuple[bytes, str]:
    first, *second = _first_lines(data)
    words = first.replace(b",", b" ").lower().split()[:2]
    follow = second[0].replace(b",", b" ").split()[:2] if second else []
    over_numbers = len(follow) == 2 and all(map(bytes.isdigit, follow)) and not any(map(bytes.isdigit, words))
    if len(words) == 2 and (over_numbers or tuple(words) in _HEADERS):
        return data.replace(first, b"", 1), first.decode("utf-8", "replace").strip()
    return data, ""


def _parse_numbers(data: bytes, source: str) -> _Parsed:
    values, counts = parse_integers(data, source)
    columns = int(counts[counts > 0][0]) if counts.any() else 0
    wrong = (counts != 0) & ((counts != columns) | (columns < 2))
    if wrong.any():
        raise _malformed(data, int(wrong.argmax()), source)
    if columns == 0:
        return _Parsed(values.reshape(0, 2), values, False)
    ids, nodes = compact_ids(values.reshape(-1, columns)[:, :2].reshape(-1))
    return _Parsed(nodes.reshape(-1, 2), ids, columns > 2)


def _parse_words(data: bytes, source: str) -> _Parsed:
    _decode(data, source)
    data = data.translate(bytes.maketrans(b"\t\r\v\f", b"    "))
    _, _, counts = find_words(data)
    if (counts == 1).any():
        raise _malformed(data, int((counts == 1).argmax()), source)
    first = (counts.cumsum() - counts)[counts > 0]
    words = data.split()
    if (counts > 2).any():
        words = [words[i] for i in np.stack((first, first + 1), axis=1).reshape(-1).tolist()]
    index = {word: i for i, word in enumerate(dict.fromkeys(words))}
    edges = np.fromiter((index[word] for word in words), np.int64, len(words)).reshape(-1, 2)
    return _Parsed(edges, [word.decode() for word in index], bool((counts > 2).any()))


def _parse_cells(data: bytes, source: str) -> _Parsed:
    lines = _decode(data, source).replace("\r", "").split("\n")
    index: dict[str, int] = {}
    ends: list[int] = []
    extra = False
    reader = csv.reader(lines, skipinitialspace=True)
    for row in reader:
        words = [word.strip() for word in row]
        if not any(words):
            continue
        if len(words) < 2 or not (words[0] and words[1]):
            raise _malformed(data, reader.line_num - 1, source)
        extra = extra or len(words) > 2
        ends.append(index.setdefault(words[0], len(index)))
        ends.append(index.setdefault(words[1], len(index)))
    return _Parsed(np.array(ends, np.int64).reshape(-1, 2), list(index), extra)


def _name(edges: IntArray, names: Sequence[str] | IntArray, ignored: list[str], source: str) -> NamedGraph:
    if len(names) == 0:
        msg = f"{source}: the graph has no nodes; give a graph with at least one."
        raise ValueError(msg)
    graph = simplify(edges[:, 0], edges[:, 1], len(names))
    for count, what in ((graph.loops, "self-loops"), (graph.repeated, "repeated or reversed edges")):
        if count:
            ignored = [*ignored, f"{count} {what}"]
    return NamedGraph(graph.edge_index, names, ignored)


def _decode(data: bytes, source: str) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        msg = f"{source}, line {line}: this is not UTF-8 text; check the file and its format."
        raise ValueError(msg) from None


def _malformed(data: bytes, line: int, source: str) -> ValueError:
    text = data.split(b"\n")[line][:60].decode("utf-8", "replace").strip()
    return ValueError(
        f"{source}, line {line + 1}: {text!r} is malformed: two node names separated by blanks, a tab or a comma are "
        "expected, and the same number of columns on each line of numbers; correct the line."
    )
