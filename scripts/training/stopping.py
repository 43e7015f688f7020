"""SIGTERM and Ctrl-C: asked for at any moment, obeyed where the state is whole."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning

from scripts.training.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# torchrun and Slurm pass on a signal that the processes may have had from the terminal already.
SAME_SECONDS = 3.0


class Stop:
    """Whether a signal has asked the run to stop.

    It stops once its state is saved; at once if there is none to save, or if it is asked again.

    Args:
        message: What to say when it stops, by the name of the signal.
    """

    def __init__(self, message: Callable[[str], str]) -> None:
        self.message = message
        self.signal: int | None = None
        self.since = 0.0
        self.training = False
        self.asked = False  # by a signal to any process

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                signal.signal(each, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and time.monotonic() - self.since < SAME_SECONDS:
            return
        again, self.signal, self.since = self.signal is not None, number, time.monotonic()
        if again or not self.training:
            # Not by an exception: it would arise anywhere, also where it is caught.
            os.write(2, f"\n{self.text()}\n".encode())
            os._exit(self.exit_code)
        os.write(2, b"\nStopping once this step or evaluation is over and saved; ask again to stop at once.\n")

    def leave(self) -> None:
        """To be called once the state is saved.

        Raises:
            Stopped: If a process was asked to stop.
        """
        if self.asked:
            raise Stopped

    def text(self) -> str:
        return self.message(signal.Signals(self.signal or signal.SIGTERM).name)

    @property
    def exit_code(self) -> int:
        """As shells give it."""
        return 128 + (self.signal or signal.SIGTERM)


class Listening(lightning.Callback):
    """Has the signals deferred while there is training to save."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.stop.training = True
        self.stop.install()  # Lightning has put its own in place

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.stop.training = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.stop.training = False
