"""Where weights lie and may be written: settled without torch, so that a wrong path is told at once."""

import os
from pathlib import Path

from boxwright.errors import CheckpointError, ConfigError

BEST, LAST = "best.safetensors", "last.safetensors"
EXPORTED = (".onnx", ".xml", ".pt2")
ELSEWHERE = {  # formats whose own tools begin with another of these
    ".engine": "from the .onnx: trtexec --onnx=model.onnx --saveEngine=model.engine",
    ".mlpackage": "onnxruntime runs the .onnx on a Mac (CoreMLExecutionProvider)",
}


def find_checkpoint(place: str | os.PathLike) -> Path:
    """The weights of a run folder (the best, else the last) or of a file.

    Raises:
        CheckpointError: there are none.
    """
    path = Path(place)
    if path.is_file():
        return path
    for name in (BEST, LAST):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise CheckpointError(f"{path}: no weights there; expected a run folder or a .safetensors file.")


def check_export(target: Path, int8: bool = False, fp16: bool = False) -> None:
    """See that a detector can be written to a file of this suffix, in so many bits.

    Raises:
        ConfigError: it can't.
    """
    if target.suffix in ELSEWHERE:
        raise ConfigError(f"{target}: isn't written here; {ELSEWHERE[target.suffix]}.")
    if target.suffix not in EXPORTED:
        raise ConfigError(f"{target}: expected one of {', '.join(EXPORTED)} to write.")
    if int8 and fp16:
        raise ConfigError("eight bits or float16: expected one of them.")
    if int8 and target.suffix != ".onnx":
        raise ConfigError(
            f"{target}: eight bits are for an .onnx; OpenVINO has a tool of its own for an .xml (NNCF)."
        )
    if fp16 and target.suffix == ".pt2":
        raise ConfigError(f"{target}: a .pt2 is in float32; expected an .onnx or .xml for float16.")
