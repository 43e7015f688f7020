"""The test suite on the oldest and on the newest supported torch: ``make test-torch-range``."""

import nox

# torch, with the torchvision that was released for it; None: the newest of both.
TORCH = {"oldest": ("torch==2.8.*", "torchvision==0.23.*"), "newest": ("torch", "torchvision")}


@nox.session
@nox.parametrize("which", list(TORCH))
def torch_range(session: nox.Session, which: str) -> None:
    """Run the suite on one end of the supported range."""
    session.install(*TORCH[which], "-e", ".[test]")
    session.run("python", "-c", "import torch; print('torch', torch.__version__)")
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)
