"""Train a model of the zoo on images, signals or volumes; an interrupted run can be resumed.

    python scripts/train.py --epochs 1 --limit-batches 2     # a look at whether everything runs, in seconds
    python scripts/train.py                                  # digits: 98 % accuracy or more, in one to two minutes
    python scripts/train.py --data folder:flowers --model resnet50 --weights timm   # fine-tuning, into runs/flowers
    python scripts/train.py --output runs/flowers --resume   # after a crash, a kill or Ctrl-C: as if nothing had been
    python scripts/train.py --data arrays:ecg.npz --spatial-dims 1 --model resnet18   # signals; also images and volumes
    torchrun --nproc-per-node 2 scripts/train.py --data torchvision:CIFAR10 --download
    python scripts/train.py --evaluate --weights runs/flowers/best.safetensors   # on the data of that run

One folder holds what a run leaves: ``options.yaml`` (the effective options, for ``--config``), ``checkpoints/`` (the
last two), ``metrics.csv`` (one row an epoch), ``tensorboard/``, ``best.safetensors`` and ``last.safetensors`` (weights,
for ``get_model(name, weights=FILE)``), and at the end ``curves.png``, ``confusion.png``, ``mistakes.png`` and
``summary.json``. docs/training.md describes everything else.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from scripts.training.command_line import parse


def main(arguments: Sequence[str] | None = None) -> None:
    for stream in (sys.stdout, sys.stderr):  # names may be in scripts that a terminal's encoding lacks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    options, parser = parse((__doc__ or "").split("\n\n")[0], arguments)
    try:
        tempfile.TemporaryDirectory(
            dir=next(each for each in options.output.absolute().parents if each.exists())
        ).cleanup()
    except OSError as error:
        parser.error(f"argument --output: must be where a folder can be made, got {options.output} ({error.strerror})")
    from scripts.training import running  # PyTorch and Lightning, which take seconds to import

    running.run(options)


if __name__ == "__main__":
    main()
