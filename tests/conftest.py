"""Settings of the whole suite."""

import os

import hypothesis
import pytest
import torch

# Two workers share two cores; more threads than cores only slow small tensors down.
torch.set_num_threads(int(os.environ.get("TORCH_THREADS", "1")))
# Machines are shared: no time limit for an example or for generating it.
SLOW = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("default", max_examples=60, **SLOW)
hypothesis.settings.register_profile("thorough", max_examples=1000, **SLOW)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """Skip tests that need an accelerator where none is available."""
    if not torch.accelerator.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture
def uninitialized_is_nan():
    """PyTorch fills the memory that ``torch.empty`` allocates with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def two_threads():
    """Large tensors are initialized by two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
