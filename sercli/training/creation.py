"""Creation of the trainer for a training, with the teacher, votes and unlabelled speech."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.audio.prosody import import_vocoder
from sercli.errors import ConfigError
from sercli.training.cache import find_cache
from sercli.training.config import (
    AdapterConfig,
    CnnConfig,
    FusionConfig,
    NeuralConfig,
    SvmConfig,
    TransformerConfig,
)
from sercli.training.train_config import DEFAULT_BASE, TrainConfig
from sercli.training.watcher import ExtractionWatcher, Watcher

if TYPE_CHECKING:
    from sercli.datasets.extraction import Progress
    from sercli.training.networks.course import Course
    from sercli.training.trainer import AnyTrainer, Say
    from sercli.training.unlabelled import Unlabelled


def create_trainer(
    config: TrainConfig,
    *,
    mapping: Mapping[str, str] = {},
    resume: bool = False,
    say: "Say" = lambda _: None,
    progress: "Progress | None" = None,
    watcher: Watcher | None = None,
) -> "AnyTrainer":
    """Return the trainer of the family that a training needs.

    Parameters
    ----------
    config
        All settings of the training.
    mapping
        The user's labels, by which the words of votes are replaced, as those of the corpus were.
    resume
        Whether to resume from existing checkpoints.
    say
        Called with each message.
    progress
        Called with the number of newly decoded clips.
    watcher
        Receiver of all other progress reports.

    Returns
    -------
    Trainer

    Raises
    ------
    ConfigError
        If settings, or a teacher, members or calm speech, do not go together, or the package is
        missing that resynthesises unlabelled speech.
    ModelError
        If a model that is needed cannot be loaded.
    DatasetError
        If the votes cannot be read.
    """
    cache = find_cache() if config.cache is None else Path(config.cache)
    settings, watcher = config.settings, watcher or Watcher()
    common: dict[str, Any] = {"cache": cache, "say": say, "progress": progress}
    if isinstance(settings, AdapterConfig):
        from sercli.training.adapters.trainer import AdapterTrainer
        from sercli.training.teachers import Teacher

        member = Teacher.load(config.members[0], settings.device)
        return AdapterTrainer(settings, member, **common)

    if config.is_shared:
        settings = replace(settings, group_by="clip")
    if isinstance(settings, FusionConfig):
        from sercli.registry.store import load_models
        from sercli.training.fusions.trainer import FusionTrainer
        from sercli.training.teachers import Teacher

        members = tuple(map(Teacher.of, load_models(config.members, settings.device)))
        return FusionTrainer(settings, members, **common)

    common["adapter"] = config.adapter and not config.is_shared
    if isinstance(settings, SvmConfig):
        from sercli.training.svm.trainer import SvmTrainer

        calm = _find_calm(config, cache, settings.jobs, watcher)
        return SvmTrainer(settings, calm=calm, watcher=watcher, **common)

    from sercli.training.networks.trainer import NeuralTrainer

    course = _create_course(config, settings, cache, watcher, mapping, resume=resume)
    return NeuralTrainer(course, **common)


def _create_course(
    config: TrainConfig,
    settings: NeuralConfig,
    cache: Path,
    watcher: Watcher,
    mapping: Mapping[str, str],
    *,
    resume: bool,
) -> "Course":
    """Return the course of the networks of a training."""
    from sercli.datasets.votes import read_votes
    from sercli.training.teachers import Teacher
    from sercli.training.unlabelled import Unlabelled

    unlabelled = None
    if config.unlabelled:
        if settings.prosodies:
            import_vocoder()  # before any recording is searched
        unlabelled = Unlabelled(
            tuple(map(Path, config.unlabelled)),
            cache,
            jobs=settings.jobs,
            prosodies=settings.prosodies,
            seed=settings.seed,
            watcher=watcher,
        )
    calm = _find_calm(config, cache, settings.jobs, watcher)
    votes = read_votes(Path(config.votes), mapping) if config.votes else None
    common: dict[str, Any] = {
        "votes": votes,
        "unlabelled": unlabelled,
        "resume": resume,
        "watcher": watcher,
    }
    rows = cache / "rows"
    if config.teacher:
        from sercli.training.substitutes import find_substitute

        teacher = Teacher.load(config.teacher, settings.device)
        common["teacher"] = teacher
        common["substitute"] = find_substitute(
            teacher,
            settings,
            votes,
            calm,
            rows=rows,
            resume=resume,
            watcher=ExtractionWatcher(watcher),
        )
        learned = teacher.classifier.spec.training.get("calm")
        if calm is not None and not learned and isinstance(settings, CnnConfig):
            raise ConfigError(
                f"--calm would do nothing: the teacher {teacher.name} was not trained with "
                "--calm; leave it out"
            )
    if isinstance(settings, CnnConfig):
        from sercli.neural.cnn import CnnSettings
        from sercli.neural.front_end import LogMelSettings
        from sercli.training.networks.cnn import CnnCourse

        log_mel = LogMelSettings(floor=settings.dynamic_range)
        return CnnCourse(settings, settings=CnnSettings(log_mel), **common)

    assert isinstance(settings, TransformerConfig)
    from sercli.training.networks.transformer import TransformerCourse
    from sercli.training.origins import find_origin

    origin = find_origin(config.base or DEFAULT_BASE, config.revision)
    common |= {"base": origin.base, "limit": origin.limit, "before": origin.manifest}
    return TransformerCourse(settings, rows=rows, calm=calm, **common)


def _find_calm(
    config: TrainConfig, cache: Path, jobs: int, watcher: Watcher
) -> "Unlabelled | None":
    """Return the calm speech of strangers, or None if the settings name none."""
    if not config.calm:
        return None
    from sercli.speech.speakers import Speakers
    from sercli.training.unlabelled import Unlabelled

    speakers = Speakers.parse(config.calm_speakers) if config.calm_speakers else None
    paths = tuple(map(Path, config.calm))
    return Unlabelled(paths, cache, "calm", speakers, jobs, watcher=watcher)
