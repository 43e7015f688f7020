"""Export a trained model, load the exported file, and compare its outputs with those of the trained model.

    python scripts/export.py runs/digits/best.safetensors --format onnx
    python scripts/export.py runs/digits/checkpoints/step-0000000720.ckpt --format torch-export --output digits.pt2
    python scripts/export.py runs/digits/checkpoints/step-0000000720.ckpt --format safetensors

A checkpoint or a file of weights from scripts/train.py contains the name and options of its model. If a checkpoint has
a moving average of the weights, it is exported. The exported model takes normalized images, with any batch size.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lazytorch
from scripts.training.errors import RunError
from scripts.training.files import write_whole
from scripts.training.weights import DESCRIPTION, description_of, input_shape, load, safetensors_file

# The largest allowed difference, as a fraction of the largest output. If it is exceeded, the file is removed.
LARGEST_DIFFERENCE = 1e-4
EXAMPLES = (2, 5)  # batch sizes for the export and for the comparison

Run = Callable[[Tensor], Tensor]


def to_onnx(model: nn.Module, description: dict[str, Any], example: Tensor, path: Path) -> Run:
    import onnxruntime

    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[DESCRIPTION] = json.dumps(description)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def to_torch_export(model: nn.Module, description: dict[str, Any], example: Tensor, path: Path) -> Run:
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(description)})
    return torch.export.load(path).module()


def to_safetensors(model: nn.Module, description: dict[str, Any], example: Tensor, path: Path) -> Run:
    write_whole(path, safetensors_file(model.state_dict(), description))
    return lazytorch.models.get_model(description["model"], weights=path, **description["model_option"]).eval()


FORMATS = {
    "onnx": (to_onnx, ".onnx"),
    "torch-export": (to_torch_export, ".pt2"),
    "safetensors": (to_safetensors, ".safetensors"),
}


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two outputs, as a fraction of the largest output."""
    if ours.shape != theirs.shape:
        raise RunError(f"The exported model must return the shape {tuple(ours.shape)}, got {tuple(theirs.shape)}.")
    return float((ours - theirs).abs().max() / ours.abs().max())


def export(source: Path, kind: str, output: Path | None) -> tuple[Path, float]:
    """Write the file; return its path and the largest difference between its outputs and the trained model's.

    Raises:
        RunError: If the difference is too large; the file is then removed.
    """
    description = description_of(source)
    model = load(source, description).eval()
    write, suffix = FORMATS[kind]
    path = output or source.with_suffix(suffix)
    if path.resolve() == source.resolve():
        raise RunError(f"{path} is what is exported: give another --output.")
    shape = input_shape(description)[1:]
    torch.manual_seed(0)
    tried = torch.randn(EXAMPLES[1], *shape)
    partial = path.with_name(f".{path.name}.partial{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            run = write(model, description, torch.randn(EXAMPLES[0], *shape), partial)
            worst = difference(model(tried), run(tried))
        if not worst <= LARGEST_DIFFERENCE:  # also if it is NaN
            raise RunError(
                f"The exported model must return the outputs of the trained model, to {LARGEST_DIFFERENCE:g} of the "
                f"largest output, got {worst:.1e}. Nothing was written."
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path, worst


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False)
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint (.ckpt) or weights (.safetensors) of scripts/train.py"
    )
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where (default: beside the checkpoint)")
    options = parser.parse_args(arguments)
    try:
        path, worst = export(options.checkpoint, options.format, options.output)
    except RunError as error:
        sys.exit(str(error))
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB; largest difference {worst:.1e} of the largest output")


if __name__ == "__main__":
    main()
