"""A run directory as lines of a log, and back again: how it comes from a job where nothing else leads out."""

import base64
import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from raybench.errors import InfrastructureError
from raybench.rundir import TRUTH

FRAME = "@@raybench "
FRAME_BYTES = 3000


def ship(run_dir: Path) -> Iterator[str]:
    """The run directory as lines for a log; a spool that is still there goes along, the truth of a simulator not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in sorted(run_dir.rglob("*")):
            if path.is_file() and path.name != TRUTH:
                tar.add(path, arcname=str(path.relative_to(run_dir)), recursive=False)
    data = buffer.getvalue()
    for at in range(0, len(data), FRAME_BYTES):
        yield FRAME + base64.b64encode(data[at : at + FRAME_BYTES]).decode()


def unpack(frames: Iterable[str], out: Path) -> None:
    """The inverse of `ship`: the run directory at `out`, whole or not at all.

    InfrastructureError if the lines are not whole, or hold anything but files below `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        fetched = Path(folder, "run")
        fetched.mkdir()
        try:
            data = b"".join(base64.b64decode(frame.removeprefix(FRAME), validate=True) for frame in frames)
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
                tar.extractall(fetched, filter=_only_files)  # noqa: S202
        except (ValueError, EOFError, OSError, tarfile.TarError) as error:
            raise InfrastructureError(f"the run directory did not come back whole: {error}") from None
        fetched.rename(out)


def _only_files(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
    """Refuses what `ship` never sends: links, devices, paths that lead out."""
    if not member.isfile():
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, place)
