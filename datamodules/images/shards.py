"""Records on disk, in files that are whole or absent, checked before use and mapped into memory."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ShardedRecords", "file_digest"]


class ShardedRecords:
    """Records of one NumPy type, numbered 0, 1, ..., in ``.npy`` files of equally many, each with a ``.sha256`` beside.

    The checksum file comes first and the records are renamed into place last, so a kill at any moment leaves a shard
    that is complete or is seen to be not. The checksums have the form of ``sha256sum -c``.

    Args:
        folder: Where the files are; made when the first is written.
        dtype: Type of a record.
        size: Number of records.
        shard_size: Records in a file; the last has fewer.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], size: int, shard_size: int) -> None:
        self.folder = folder
        self.dtype = dtype
        self.size = size
        self.shard_size = shard_size
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Give the number of records."""
        return self.size

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: a worker opens its own."""
        return {**self.__dict__, "_maps": {}}

    @property
    def num_shards(self) -> int:
        """Number of files."""
        return -(-self.size // self.shard_size)

    def numbers(self, shard: int) -> range:
        """Give the numbers of the records in a file."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.size))

    def path(self, shard: int) -> Path:
        """Give the file of a shard."""
        return self.folder / f"shard-{shard:05d}.npy"

    def is_whole(self, shard: int) -> bool:
        """Say whether a shard is there, undamaged, and of the right type and length."""
        path = self.path(shard)
        checksum = path.with_suffix(".sha256")
        if not path.is_file() or not checksum.is_file() or checksum.read_text().split()[:1] != [file_digest(path)]:
            return False
        records = np.load(path, mmap_mode="r")
        return records.dtype == self.dtype and len(records) == len(self.numbers(shard))

    def write(self, shard: int, records: np.ndarray) -> None:
        """Put a shard in its place, whole."""
        self._maps.pop(shard, None)
        path = self.path(shard)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with partial.open("wb") as file:
            np.save(file, records)
            file.flush()
            os.fsync(file.fileno())
        checksum = partial.with_suffix(".sum")
        checksum.write_text(f"{file_digest(partial)}  {path.name}\n")
        checksum.replace(path.with_suffix(".sha256"))
        partial.replace(path)

    def shard(self, shard: int) -> np.ndarray:
        """Map a file into memory."""
        if shard not in self._maps:
            self._maps[shard] = np.load(self.path(shard), mmap_mode="r")
        return self._maps[shard]

    def field(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Read one field of the records with these numbers, int64 (B,), in their order."""
        found = np.empty((len(numbers), *self.dtype[name].shape), self.dtype[name].base)
        shards = numbers // self.shard_size
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = self.shard(int(shard))[name][numbers[here] % self.shard_size]
        return found


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
