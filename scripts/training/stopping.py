"""SIGTERM and Ctrl-C: asked for at any moment, obeyed where the state is whole."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import lightning

from scripts.training.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal has asked the run to stop; a second one stops it at once.

    Outside of the training loop there is nothing to save, and the first one stops it at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.training = False
        self.asked = False  # by a signal to any process

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                signal.signal(each, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal is not None, number
        if again or not self.training:
            raise Stopped
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: stopping once this step or evaluation is saved; again to stop at once.\n".encode())

    def leave(self) -> None:
        """To be called once the state is saved."""
        if self.asked:
            raise Stopped

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
