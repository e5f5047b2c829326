"""What a person sees of a run: a bar in a terminal, a line an epoch in a log, evaluations in both."""

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from boxwright.progress import WAITING, console


class TrainingDisplay:
    """A progress bar over the steps with loss, rate and speed.

    Args:
        total: steps of the run.
        done: steps done before.
        steps_per_epoch: to show the epoch.
        shown: False: silent, for processes other than the first.
    """

    def __init__(self, total: int, done: int, steps_per_epoch: int, shown: bool):
        self.shown = shown
        self.steps_per_epoch, self.done = steps_per_epoch, done
        self.epochs = total // steps_per_epoch
        self.numbers = ""
        columns = (
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, disable=not (shown and console.is_terminal))
        self.task = self.progress.add_task(
            "", total=total, completed=done, epoch=0, epochs=self.epochs, numbers=""
        )

    def __enter__(self) -> "TrainingDisplay":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def plan(self, total: int) -> None:
        """So many steps, in place of those that were planned."""
        self.epochs = total // self.steps_per_epoch
        self.progress.update(self.task, total=total, epochs=self.epochs)

    def advance(self) -> None:
        """One step more."""
        self.done += 1
        epoch = min(self.epochs, -(-self.done // self.steps_per_epoch))
        self.progress.update(self.task, advance=1, epoch=epoch)
        if self.shown and not console.is_terminal and self.done % self.steps_per_epoch == 0:
            console.print(f"epoch {epoch}/{self.epochs}  {self.numbers}")

    def show(self, loss: float, rate: float, speed: float, waiting: float) -> None:
        """The numbers of the last steps; `waiting`: share of the time in which no batch was ready."""
        # 80 columns have no room for a fourth.
        third = f"waits {waiting:.0%}" if waiting > WAITING else f"lr {rate:.1e}"
        self.numbers = f"loss {loss:.3f}  {third}  {speed:.0f} img/s"
        self.progress.update(self.task, numbers=self.numbers)

    def tell(self, epoch: int, numbers: dict[str, float], seconds: float) -> None:
        """A line that stays."""
        if self.shown:
            text = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            console.print(f"epoch {epoch}/{self.epochs}  {text}  {seconds:.0f} s")
