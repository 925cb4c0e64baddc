"""``theodolite fit | validate | test | predict``: LightningCLI with run directories, two loggers and exact resume."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.trainer.states import TrainerStatus
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

# imported so that configurations can name the classes without their packages
from .. import callbacks, datamodules, modules  # noqa: F401
from ..callbacks import FiniteLoss, PredictionWriter
from ..modules import attacks, bias, classification, community, matching, regression  # noqa: F401
from .checkpointing import AtomicCheckpointIO, check_checkpoint, default_checkpoints
from .links import ModelInstantiator, check_links, link
from .loggers import RunCSVLogger, RunWandbLogger, WandbMode, wandb_mode
from .resume import ReseedEveryEpoch
from .run_callback import RunDirectoryCallback
from .run_directory import RunDirectory, best_checkpoint, find_run, last_checkpoint, new_run_id
from .session import session

__all__ = ["TheodoliteCLI", "global_rank"]

COMMANDS = ("fit", "validate", "test", "predict")
#: Arguments that say which run this is, not what it does: left out of the saved configuration.
RUN_ARGUMENTS = ("config", "run_id", "ckpt_path")


#: Errors are raised, to become one line; a shortened option is a typo: it would start a long run with another meaning.
_PARSER = {"exit_on_error": False, "allow_abbrev": False}


class TheodoliteCLI(LightningCLI):
    """Parse, build and run one command.

    Args:
        arguments: The command and its options.
    """

    run_callback: RunDirectoryCallback | None = None

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self.wandb_logger: RunWandbLogger | None = None
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunDirectoryCallback saves it, into the run directory
            seed_everything_default=0,
            auto_configure_optimizers=False,  # a task takes its optimizer as an argument
            parser_kwargs={
                "prog": "theodolite",
                **_PARSER,
                **dict.fromkeys(COMMANDS, _PARSER),
            },
            args=self._arguments,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Leave out ``weights_only``: our checkpoints always load that way."""
        return {command: {*skip, "weights_only"} for command, skip in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of a run, and link sizes from the data to the model."""
        group = parser.add_argument_group("Run directory and loggers")
        group.add_argument(
            "--experiment",
            type=str | None,
            default=_config_stem(self._arguments),
            help="Name of the experiment, a folder of runs. Default: the config file's name, else the model's class.",
        )
        group.add_argument("--runs_dir", type=str, default="runs", help="Folder of all experiments.")
        group.add_argument(
            "--run_id", type=str | None, default=None, help="Name of the run. Default: the time and random digits."
        )
        group.add_argument(
            "--wandb",
            type=WandbMode,
            default="auto",
            help="Weights & Biases; auto: WANDB_MODE if set, else online if there is an API key, else offline.",
        )
        group.add_argument("--wandb_project", type=str, default="theodolite", help="The W&B project.")
        group.add_argument(
            "--log_checkpoints", type=bool, default=False, help="Store checkpoints as W&B artifacts (fit)."
        )
        group.add_argument(
            "--test_after_fit", type=bool, default=False, help="Test the best checkpoint after training (fit)."
        )
        link(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to the class; those of the process are none of its business."""
        self.config = parser.parse_args(args)

    def _add_instantiators(self) -> None:
        """Record of the linked values only those the model takes, so that checkpoints can be loaded again."""
        super()._add_instantiators()
        self.parser.add_instantiator(ModelInstantiator(cli=self, key="model"), LightningModule, subclasses=True)

    def _parse_ckpt_path(self) -> None:
        """Let configuration and command line decide: a checkpoint brings its weights, not its hyperparameters."""

    def before_instantiate_classes(self) -> None:
        """Plan the run: its directory, and the checkpoint that ``last`` or ``best`` stands for."""
        config = self.config[str(self.subcommand)]
        _check_limits(config.trainer)
        _avoid_emulation(config.trainer)
        experiment = config.experiment or config.model.class_path.rpartition(".")[2]
        runs_dir = Path(config.runs_dir)
        resumed = self.subcommand == "fit" and config.ckpt_path == "last"
        if resumed:
            path = find_run(runs_dir, experiment, config.run_id)
            self.ckpt_path = last_checkpoint(path)
            run_id = path.name
        else:
            run_id = config.run_id or new_run_id()
            self.ckpt_path = self._find_checkpoint(config.ckpt_path, runs_dir / experiment)
        if self.ckpt_path is not None:
            check_checkpoint(self.ckpt_path)
        named = config.run_id is not None and global_rank() == 0
        self.run = RunDirectory(runs_dir, experiment, run_id, named=named, resumed=resumed)
        if resumed and self.ckpt_path is None:
            rank_zero_info(f"{self.run.path} was stopped before its first checkpoint: it begins again from the start.")

    def _find_checkpoint(self, ckpt_path: str | None, experiment: Path) -> Path | None:
        if ckpt_path == "best" and self.subcommand == "fit":
            msg = "--ckpt_path best: training goes on from last, in the same run, or from a file, in a new one."
            raise ValueError(msg)
        if ckpt_path in {"last", "best"}:
            run = _run_of_config(self._arguments) or find_run(experiment.parent, experiment.name)
            path = last_checkpoint(run) if ckpt_path == "last" else best_checkpoint(run)
            if path is None:
                msg = f"--ckpt_path last: {run} was stopped before its first checkpoint."
                raise FileNotFoundError(msg)
            rank_zero_info(f"--ckpt_path {ckpt_path}: {path}")
            return path
        return Path(ckpt_path) if ckpt_path else None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with the loggers, callbacks and plugins of every run added to the configured ones."""
        check_links(self.config[str(self.subcommand)].model, self.datamodule)
        if self.subcommand == "fit" and isinstance(self.model, modules.Task):
            self.model.configure_optimizers()  # a wrong learning rate must fail now, before anything is written
        config = self.config[str(self.subcommand)]
        configured = self._get(self.config_init, "trainer")
        self.run_callback = RunDirectoryCallback(self.run, self._saved_config(), self._arguments)
        own = _as_list(configured.callbacks)
        added: list[Callback] = [FiniteLoss()]
        if not isinstance(config.seed_everything, bool):
            added.append(ReseedEveryEpoch(config.seed_everything))
        if configured.enable_checkpointing is not False:
            added += default_checkpoints(self.model, own, validates=configured.limit_val_batches != 0)
        loggers = self._loggers(configured.logger)
        if self.wandb_logger is not None and config.log_checkpoints and self.subcommand == "fit":
            kept = [callback for callback in [*own, *added] if isinstance(callback, ModelCheckpoint)]
            self.wandb_logger.artifacts = [callback for callback in kept if callback.monitor] or kept
        plugins = _as_list(configured.plugins)
        sharded = str(configured.strategy).startswith(("fsdp", "deepspeed"))  # they write checkpoints by themselves
        if not sharded and not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        return super().instantiate_trainer(
            callbacks=[self.run_callback, *own, *added],  # first: the others may write in their setup
            logger=loggers,
            plugins=plugins,
            default_root_dir=str(self.run.path),
            **kwargs,
        )

    def _loggers(self, configured: Any) -> list[Logger]:
        config = self.config[str(self.subcommand)]
        if configured is False:
            return []
        loggers: list[Logger] = [RunCSVLogger(self.run.path)]
        mode = wandb_mode(config.wandb)
        if mode != "disabled":
            self.wandb_logger = RunWandbLogger(
                self.run.path,
                mode=mode,
                project=config.wandb_project,
                job_type=str(self.subcommand),
            )
            loggers.append(self.wandb_logger)
        return loggers + [logger for logger in _as_list(configured) if isinstance(logger, Logger)]

    def _saved_config(self) -> dict[str, Any]:
        """Give the configuration that, fed back, makes this run again under another id."""
        parser = self._parser(self.subcommand)
        text = parser.dump(self.config[str(self.subcommand)], skip_none=False)
        config = yaml.safe_load(text)
        config["experiment"] = self.run.experiment
        return {key: value for key, value in config.items() if key not in RUN_ARGUMENTS}

    def _run_subcommand(self, subcommand: str) -> None:
        """Wait: everything is built, :meth:`execute` runs it."""

    def execute(self) -> None:
        """Run the command.

        Raises:
            UserError: If the configuration turns out to be wrong.
            Stopped: If the run was interrupted or its loss is not finite.
        """
        assert self.run_callback is not None
        with session(self.trainer, self.run_callback, self.wandb_logger, self.resume_command):
            super()._run_subcommand(str(self.subcommand))

    def fit(self, **kwargs: Any) -> None:
        """Train, and test the best checkpoint where the configuration says so."""
        self.trainer.fit(**{**kwargs, "ckpt_path": self.ckpt_path})
        if self.trainer.state.status == TrainerStatus.FINISHED and self.config.fit.test_after_fit:
            if getattr(self.trainer, "fast_dev_run", False):
                return
            # The metrics are in metrics.csv and in our callbacks' own tables; Lightning's would cut long keys.
            self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=self._tested_checkpoint(), verbose=False
            )

    def _tested_checkpoint(self) -> str | None:
        """Give the best checkpoint of the run, or the last one where nothing is monitored."""
        kept = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        paths = [c.best_model_path for c in kept if c.monitor] + [c.best_model_path for c in kept]
        return next((path for path in paths if path and Path(path).is_file()), None)

    def validate(self, **kwargs: Any) -> None:
        """Evaluate on the validation split."""
        self._evaluate("validate", kwargs)

    def test(self, **kwargs: Any) -> None:
        """Evaluate on the test split."""
        self._evaluate("test", kwargs)

    def predict(self, **kwargs: Any) -> None:
        """Predict; the datamodule or a callback writes the result."""
        self._evaluate("predict", kwargs)

    def _evaluate(self, command: str, kwargs: dict[str, Any]) -> None:
        if self.ckpt_path is None and any(parameter.requires_grad for parameter in self.model.parameters()):
            rank_zero_warn(
                f"theodolite {command} without --ckpt_path uses the model's initial weights; "
                "for the trained ones give --ckpt_path best, last or a file."
            )
        configured = _as_list(self._get(self.config_init, "trainer").callbacks)
        if command == "predict" and not any(isinstance(c, PredictionWriter | BasePredictionWriter) for c in configured):
            rank_zero_warn(
                "theodolite predict has no callback that writes the predictions; "
                "for communities of nodes add --trainer.callbacks+=CommunityWriter, for matchings MatchingWriter."
            )
        getattr(self.trainer, command)(**{**kwargs, "ckpt_path": self.ckpt_path})

    def resume_command(self) -> str:
        """Give the command that goes on with this run."""
        words: list[str] = []
        skip = False
        for word in self._arguments:
            option, equals, _ = word.partition("=")
            if skip or option in {"--ckpt_path", "--run_id"}:
                skip = not skip and not equals
                continue
            words.append(word)
        return shlex.join(["theodolite", *words, "--run_id", self.run.run_id, "--ckpt_path", "last"])


def _run_of_config(arguments: Sequence[str]) -> Path | None:
    """Give the run directory whose ``config.yaml`` was given: its checkpoints are meant, not those of a newer run."""
    path = _config_file(arguments)
    return path.parent if path is not None and (path.parent / "checkpoints").is_dir() else None


def _config_stem(arguments: Sequence[str]) -> str | None:
    """Give the name of the first configuration file."""
    path = _config_file(arguments)
    return path.stem if path is not None else None


def _config_file(arguments: Sequence[str]) -> Path | None:
    """Give the first configuration file."""
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in {"-c", "--config"}:
            name = value if equals else (arguments[i + 1] if i + 1 < len(arguments) else "")
            if Path(name).is_file():
                return Path(name)
    return None


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _check_limits(trainer: Any) -> None:
    """Refuse the limit 1, which Lightning reads as 1.0: everything."""
    for stage in ("train", "val", "test", "predict"):
        option = f"limit_{stage}_batches"
        if trainer.get(option) == 1:
            msg = (
                f"--trainer.{option} 1 would mean 1.0, all batches; give 2 or more batches, a fraction below 1, "
                "--trainer.fast_dev_run 1 for one batch, or leave it out for all."
            )
            raise ValueError(msg)


def _avoid_emulation(trainer: Any) -> None:
    """Use float32 where bfloat16 was asked for its speed, and this machine would only emulate it."""
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    if trainer.precision == "bf16-mixed" and on_cpu and not has_bfloat16():
        trainer.precision = "32-true"
        rank_zero_info(
            "--trainer.precision bf16-mixed: this CPU has no instructions for bfloat16, which makes it about ten times "
            "slower than float32; 32-true is used."
        )


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the CPU computes in bfloat16; yes where the machine does not say."""
    return not cpuinfo.is_file() or "bf16" in cpuinfo.read_text()


def global_rank() -> int:
    """Give this process's rank as far as its launcher's environment tells, before there is a strategy."""
    return getattr(rank_zero_only, "rank", 0) or int(os.environ.get("NODE_RANK", "0"))
