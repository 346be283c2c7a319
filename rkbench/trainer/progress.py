"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere."""

import sys
import time

import tqdm


class Progress:
    """Reports one group of seeds.

    On a terminal: a bar with steps a second, the last loss and accuracy, and the remaining time.
    Else a line at the end and at most one every `SECONDS_BETWEEN_LINES` seconds.
    """

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, label: str, total_steps: int, first_step: int, visible: bool = True):
        """`visible` is false where another process of the run reports."""
        self._visible = visible
        self._label, self._total, self._first = label, total_steps, first_step
        self._step = first_step
        self._shown: dict[str, float] = {}
        self._begin = self._last_line = time.monotonic()
        self._printed = -1  # the step of the last line
        self._bar = None
        if visible and sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total_steps, initial=first_step, desc=label, unit="step")

    def update(self, step: int, **shown: float) -> None:
        """Reports that `step` steps are done, with numbers to show."""
        self._shown |= shown
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in self._shown.items()}, refresh=False)
            self._bar.update(step - self._step)
        self._step = step
        if time.monotonic() - self._last_line >= self.SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        if self._visible and self._bar is None and self._step != self._printed:
            self._printed = self._step
            self._last_line = time.monotonic()
            print(self._line(self._last_line - self._begin), file=sys.stderr, flush=True)

    def _line(self, elapsed: float) -> str:
        rate = (self._step - self._first) / elapsed if elapsed > 0 else 0.0
        remaining = (self._total - self._step) / rate if rate > 0 else 0.0
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self._shown.items())
        return (
            f"{self._label}  step {self._step}/{self._total}  {numbers}  "
            f"{rate:.3g} steps/s  {remaining:.0f} s left"
        )

    def close(self) -> None:
        """Ends the bar, or prints the last line."""
        self._print_line()
        if self._bar is not None:
            self._bar.close()
