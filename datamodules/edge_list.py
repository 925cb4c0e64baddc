"""Read lists of edges and other rows of integers from text files, plain or gzipped, vectorised."""

import gzip
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .sbm import to_edge_index

IntArray = NDArray[np.int64]

_COMMENT = re.compile(rb"^[ \t]*[#%][^\n]*", re.MULTILINE)
_MAX_DIGITS = 18  # 10^18 < 2^63: so many digits always fit in int64


class IntegerRows(NamedTuple):
    """Rows of integers, of any length each.

    Attributes:
        values: All integers, row after row, int64.
        counts: How many of them each line of the file has, int64; 0 for a blank line or a comment.
    """

    values: IntArray
    counts: IntArray


class SimpleGraph(NamedTuple):
    """An undirected graph without loops and repeated edges, and what was left out for it.

    Attributes:
        edge_index: int64 (2, E), both directions, sorted by (row, column).
        loops: Number of self-loops left out.
        repeated: Number of repeated edges left out, an edge and its reverse being the same.
    """

    edge_index: Tensor
    loops: int
    repeated: int


def read_bytes(path: Path) -> bytes:
    """Read a file whole, unpacked if it is gzipped (whatever its name).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder or its gzip data are damaged.
    """
    if not path.exists():
        msg = f"{path}: there is no such file; check the path."
        raise FileNotFoundError(msg)
    if not path.is_file():
        msg = f"{path}: this is a folder; give the path of a file."
        raise ValueError(msg)
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        if path.suffix == ".gz" and data:
            msg = f"{path}: the name ends in .gz but the content is not gzip; rename the file or fetch it again."
            raise ValueError(msg)
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path}: the gzip data are damaged ({error}); delete the file and fetch it again."
        raise ValueError(msg) from None


def blank_comments(data: bytes) -> bytes:
    """Blank the lines that start with ``#`` or ``%``; the number of lines stays."""
    return _COMMENT.sub(b"", data) if b"#" in data or b"%" in data else data


def find_words(data: bytes) -> tuple[IntArray, IntArray, IntArray]:
    """Find the words of a text, separated by blanks and line ends only.

    Args:
        data: The text.

    Returns:
        First byte of each word, the byte after its last, and the number of words on each line, int64.
    """
    codes = np.frombuffer(data, np.uint8)
    change = np.flatnonzero(np.diff((codes != ord(" ")) & (codes != ord("\n")), prepend=False, append=False))
    starts, ends = change[0::2], change[1::2]
    line_ends = np.append(np.flatnonzero(codes == ord("\n")), len(data))
    return starts, ends, np.diff(np.searchsorted(starts, line_ends), prepend=0)


def parse_integers(data: bytes, source: str) -> IntegerRows:
    r"""Parse lines of non-negative integers below 10^18, separated by blanks, tabs or commas.

    Comments (lines that start with ``#`` or ``%``) and blank lines count as lines without integers, so that entry i of
    ``counts`` belongs to line i + 1 of the file. Takes about 0.2 s for a million lines of two.

    Args:
        data: The text.
        source: Name of the file, for messages.

    Raises:
        ValueError: Naming file and line, if a line holds anything else.

    Example:
        >>> parse_integers(b"# head\n1 2\n3,45\n", "a.txt")
        IntegerRows(values=array([ 1,  2,  3, 45]), counts=array([0, 2, 2, 0]))
    """
    data = blank_comments(data).translate(bytes.maketrans(b"\t\r,", b"   "))
    strange = data.translate(None, b"0123456789 \n")
    if strange:
        raise _malformed(data, data.index(strange[:1]), source, "only integers >= 0 are allowed")
    starts, ends, counts = find_words(data)
    too_long = ends - starts > _MAX_DIGITS
    if too_long.any():
        raise _malformed(data, int(starts[too_long.argmax()]), source, f"integers have at most {_MAX_DIGITS} digits")
    values = np.fromstring(data.decode("ascii"), dtype=np.int64, sep=" ") if counts.any() else np.empty(0, np.int64)
    return IntegerRows(values, counts)


def parse_integer_edges(data: bytes, source: str) -> tuple[IntArray, IntArray]:
    """Parse an edge list of integers, one edge of exactly two nodes on each line.

    Args:
        data: The text, as in :func:`parse_integers`.
        source: Name of the file, for messages.

    Returns:
        First and second node of each edge, int64 (m,) each.

    Raises:
        ValueError: If there is no edge or, naming file and line, if a line is malformed.
    """
    values, counts = parse_integers(data, source)
    if not len(values):
        msg = f"{source}: there are no edges in it; give a file with two node ids on each line."
        raise ValueError(msg)
    wrong = (counts != 0) & (counts != 2)
    if wrong.any():
        line = int(wrong.argmax())
        msg = f"{source}, line {line + 1}: {counts[line]} numbers where two node ids are expected; correct the line."
        raise ValueError(msg)
    return values[0::2], values[1::2]


def compact_ids(ids: IntArray) -> tuple[IntArray, IntArray]:
    """Number the distinct values of an array from 0 in increasing order.

    Args:
        ids: Integers >= 0, (m,), m >= 1.

    Returns:
        The distinct values, increasing, and the number of each entry, as ``numpy.unique`` gives with
        ``return_inverse``; without sorting where the largest value is not much over m.
    """
    size = int(ids.max()) + 1
    if size > 16 * len(ids) + 1024:
        values, numbers = np.unique(ids, return_inverse=True)
        return values, numbers
    present = np.zeros(size, np.bool_)
    present[ids] = True
    return np.flatnonzero(present), (present.cumsum() - 1)[ids]


def simplify(u: IntArray, v: IntArray, num_nodes: int) -> SimpleGraph:
    """Make an undirected simple graph of edges in any order and direction.

    Args:
        u: First node of each edge, (m,), in [0, num_nodes).
        v: Second node of each edge, (m,).
        num_nodes: Number of nodes, at most 2^31.
    """
    keep = u != v
    low, high = np.minimum(u, v)[keep], np.maximum(u, v)[keep]
    key = np.sort(low * num_nodes + high)
    key = key[np.concatenate(([True], key[1:] != key[:-1]))] if len(key) else key
    edge_index = to_edge_index(key // num_nodes, key % num_nodes, num_nodes)
    return SimpleGraph(edge_index, len(u) - len(low), len(low) - len(key))


def _malformed(data: bytes, position: int, source: str, allowed: str) -> ValueError:
    line = data.count(b"\n", 0, position)
    first = data.rfind(b"\n", 0, position) + 1
    text = data[first : first + 60].split(b"\n")[0].decode("utf-8", "replace")
    return ValueError(f"{source}, line {line + 1}: {text!r} is malformed: {allowed}; correct the line.")
