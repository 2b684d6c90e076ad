"""Lightning loggers of the recipe or of `--logger`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from edgekd.core.recipe import Trainer
from edgekd.errors import PackageError, UserError, one_line

DEFAULT_DIR = Path("edgekd_logs")


def _mlflow(folder: Path, project: str, run: str) -> Logger:
    """Return a logger to the server of MLFLOW_TRACKING_URI, else to a database in the folder: MLflow 3 writes no files."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder.absolute() / 'mlflow.db'}"
    return MLFlowLogger(project, run, tracking_uri=uri)


_MAKERS: dict[str, Callable[[Path, str, str], Logger]] = {
    "csv": lambda folder, project, run: CSVLogger(folder / "csv", f"{project}/{run}"),
    "tensorboard": lambda folder, project, run: TensorBoardLogger(folder / "tensorboard", f"{project}/{run}"),
    "mlflow": _mlflow,
    "wandb": lambda folder, project, run: WandbLogger(run, folder, project=project, group=project),
}


@contextmanager
def named_loggers(settings: Trainer, project: str, run: str, facts: dict[str, Any]) -> Iterator[list[Logger]]:
    """Yield the loggers of `trainer.loggers` for one training, and end their runs after it.

    Args:
        settings: names and folder; servers and keys are in the environment variables of MLflow and W&B.
        project: experiment of MLflow, project of W&B, folder of the others.
        run: the training, e.g. `distilled`.
        facts: settings of the training, stored as hyperparameters.

    Raises:
        PackageError: the package of a logger is not installed.
        UserError: a logger cannot begin, e.g. without its server or key.
    """
    folder = settings.log_dir or DEFAULT_DIR
    loggers = [_begun(name, (folder, project, run), facts) for name in settings.loggers]
    try:
        yield loggers
    finally:
        _end(loggers)


def _begun(name: str, where: tuple[Path, str, str], facts: dict[str, Any]) -> Logger:
    try:
        logger = _MAKERS[name](*where)
        logger.log_hyperparams(facts)
    except ModuleNotFoundError as exc:
        raise PackageError(f"trainer.loggers: {name} is not installed; pip install {name}") from exc
    except Exception as exc:
        raise UserError(f"trainer.loggers: {name} does not work: {one_line(exc)}") from exc
    return logger


def _end(loggers: Sequence[Logger]) -> None:
    """End W&B's runs: Lightning leaves them open, and the next training of this process would continue the same run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
