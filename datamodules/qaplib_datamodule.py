"""The instances of QAPLIB as a LightningDataModule."""

import tarfile
import zlib
from pathlib import Path

from .download import download
from .edge_list import read_bytes
from .pair_file import Instance, InstanceDataModule, to_instance
from .qaplib import Text, parse_instance

__all__ = ["QAPLIBDataModule"]

#: Where QAPLIB serves the archives of its problems and solutions.
URL = "https://qaplib.mgi.polymtl.ca"
ARCHIVES = ("data.d/qapdata.tar.gz", "soln.d/qapsoln.tar.gz")

#: Optima of problems without a solution file, confirmed by trying all permutations.
OPTIMA = {"tai10a": 135028.0, "tai10b": 1183760.0}


class QAPLIBDataModule(InstanceDataModule):
    """The published quadratic assignment problems, n = 10 to 256, to test and predict on.

    Matrices A and B are float64, to be matched at the least cost ``sum A[i][j] B[p(i)][p(j)]``. ``instance(sample_id)``
    has the best cost known: that of the solution shipped with the problem, computed anew (see :func:`parse_instance`).
    For the large Taillard problems it may since have been improved.

    The files are looked for in ``data_dir``: ``<name>.dat`` and ``<name>.sln``, or QAPLIB's archives
    ``qapdata.tar.gz`` and ``qapsoln.tar.gz``, which are downloaded if what is asked for is absent.

    Args:
        data_dir: Folder of the files.
        instances: Names of the problems, e.g. ``["chr12c", "nug30"]``; ``None`` for all.
        max_size: Largest n taken; ``None`` for all.
        symmetric_only: Take only problems of which both matrices are symmetric.

    Raises:
        FileNotFoundError: If the files are absent and cannot be downloaded.
        ValueError: If an argument is wrong, or on reading, if a file is malformed or nothing is left.
    """

    def __init__(
        self,
        data_dir: str = "data/qaplib",
        instances: list[str] | None = None,
        max_size: int | None = None,
        symmetric_only: bool = False,
    ) -> None:
        super().__init__()
        if instances is not None and not instances:
            msg = "QAPLIBDataModule(instances=[]): give at least one name, or null for all problems."
            raise ValueError(msg)
        if max_size is not None and max_size < 1:
            msg = f"QAPLIBDataModule(max_size={max_size}): it must be >= 1, or null for all sizes."
            raise ValueError(msg)
        self.data_dir = Path(data_dir).expanduser()
        self.names = instances
        self.max_size = max_size
        self.symmetric_only = symmetric_only

    def prepare_data(self) -> None:
        """Download the archives if a problem that is asked for is absent."""
        texts = self._texts(".dat")
        if texts and all(name in texts for name in self.names or []):
            return
        for archive in ARCHIVES:
            path = self.data_dir / Path(archive).name
            if not path.exists():
                download(
                    f"{URL}/{archive}",
                    path,
                    f"QAPLIBDataModule: the problems are not in {self.data_dir}",
                    "fetch it with a browser and put it there, or give another data_dir.",
                )

    def read(self) -> list[Instance]:
        """Read the problems, those of the archives too."""
        texts, solutions = self._texts(".dat"), self._texts(".sln")
        names = sorted(texts) if self.names is None else self.names
        absent = [name for name in names if name not in texts]
        if absent or not names:
            what = ", ".join(absent) or "any problem"
            msg = f"QAPLIBDataModule(data_dir={str(self.data_dir)!r}): {what} is not there; check names and folder."
            raise FileNotFoundError(msg)
        chosen = []
        for name in names:
            problem = parse_instance(texts[name], solutions.get(name))
            if (self.max_size is None or len(problem.first) <= self.max_size) and (
                problem.symmetric or not self.symmetric_only
            ):
                chosen.append(to_instance(name, problem, OPTIMA.get(name)))
        if not chosen:
            msg = (
                f"QAPLIBDataModule(max_size={self.max_size}, symmetric_only={self.symmetric_only}): none of the "
                f"{len(names)} problems is left; raise max_size or set symmetric_only to false."
            )
            raise ValueError(msg)
        return chosen

    def _texts(self, suffix: str) -> dict[str, Text]:
        """Give the files of a kind by name, those of the folder before those of the archives."""
        texts = {}
        for archive in ARCHIVES:
            path = self.data_dir / Path(archive).name
            if path.exists():
                texts.update(_unpack(path, suffix))
        texts.update({path.stem: Text(read_bytes(path), str(path)) for path in self.data_dir.glob(f"*{suffix}")})
        return texts


def _unpack(path: Path, suffix: str) -> dict[str, Text]:
    """Give the files of a kind in an archive, by name.

    Raises:
        ValueError: If the archive is damaged.
    """
    texts = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(suffix) else None
                if file is not None:
                    texts[Path(member.name).stem] = Text(file.read(), f"{path}:{member.name}")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        msg = f"{path}: the archive is damaged ({error}); delete the file and fetch it again."
        raise ValueError(msg) from None
    return texts
