"""A commented config to start from."""

from pathlib import Path

from raybench.errors import InputError

TEMPLATE = Path(__file__).with_name("starter.yaml")


def init(path: Path) -> None:
    """Writes the starter config to `path`; InputError if something is there already, or it cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text("utf-8").replace("{file}", str(path)))
    except FileExistsError:
        raise InputError("is there already", where=str(path), allowed="a name that is free") from None
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
