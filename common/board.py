"""What `--tensorboard` writes: losses, accuracies and queried images, all from the run's state.

A resumed run rewrites the folder from its state: no point is duplicated or missing, and the flag may be added later.
"""

import shutil
from pathlib import Path

from common.schema import LOSSES

SHOWN = 64  # queried images of a round


class Board:
    """One run's event file. Nothing else writes to its folder.

    Args:
        folder: emptied first.
        images: the training images among them are shown.
        epochs: per round; they are counted across all rounds.
    """

    def __init__(self, folder: Path, images, epochs: int):
        from torch.utils.tensorboard import SummaryWriter  # an extra, and slow to import

        shutil.rmtree(folder, ignore_errors=True)
        self._writer, self._images, self._epochs = SummaryWriter(str(folder)), images, epochs
        self._place = images.places()
        self._shown = {"history": 0, "results": 0, "queries": 0}  # rows

    def show(self, state: dict) -> None:
        """Writes the rows of a run's state that the event file does not have yet."""
        for row in self._new(state, "history"):
            epoch = int(row["round"]) * self._epochs + int(row["epoch"])
            for name in ("loss", *LOSSES):
                if row[name]:
                    self._writer.add_scalar(f"loss/{name}", float(row[name]), epoch)
            if row["val_accuracy"]:
                self._writer.add_scalar("accuracy/validation", float(row["val_accuracy"]), epoch)
        for row in self._new(state, "results"):
            self._writer.add_scalar("accuracy/test, by labels", float(row["test_accuracy"]), int(row["labeled"]))
        queried: dict[int, list[int]] = {}
        for row in self._new(state, "queries"):
            queried.setdefault(int(row["round"]), []).append(self._place[int(row["index"])])
        for number, places in queried.items():
            best_first = self._images.train[places[:SHOWN]].cpu().numpy()
            self._writer.add_images(f"queried/round {number}", best_first, number, dataformats="NHWC")
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()

    def _new(self, state: dict, table: str) -> list[dict]:
        columns = {name: values[self._shown[table] :] for name, values in state[table].items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self._shown[table] += len(rows)
        return rows
