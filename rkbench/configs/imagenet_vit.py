"""ImageNet, ViT-B/16 (86,415,592 parameters), 186,666 steps of batch 1024 with warm-up and cosine.

Reference: Table 1 "ImageNet, ViT" (Appendix D.5).
Expected: best validation accuracy 78.5 % +- 0.2 with NAdamW, 61.2 % +- 0.2 with RK4 (paper).
Cost: see `docs/workloads.md`; for accelerators. `dtype=bfloat16`, `remat=True` and
`physical_batch_size` save memory.
Command: `rkbench convert --dataset=imagenet2012` once, which makes ImageNet fit for random access;
then `python -m rkbench.main --config=configs/imagenet_vit.py:rk4 --workdir=DIR`;
the paper's five trials: `--config.seeds="(0,1,2,3,4)"`.

Where the paper is silent: 186,666 steps with an evaluation every 1,866 are the budget of AlgoPerf's
ImageNet ViT workload (https://github.com/mlcommons/algorithmic-efficiency), so its settings stand:
- Learning rate of NAdamW: 8.445e-4 after 5 % linear warm-up, then cosine to 0: AlgoPerf's published
  ViT setting. An assumption; the paper gives b1, b2, eps, weight decay and label smoothing only.
- RK4's "cosine warmup": the same schedule, with its peak at the paper's 0.16.
- RK4 has NAdamW's label smoothing, so that both minimise the same loss; it has no weight decay.
- The model: sin-cos positions, mean pooling, zero-initialised head, no dropout.
- Augmentation: Inception-style crop, flip, RandAugment (2 layers, magnitude 10) and mixup with
  alpha 0.2. The share of mixup is drawn for each example (AlgoPerf: for each batch), so that
  chunks change nothing.
- Input scaling: the mean and standard deviation of each channel in common use.
- Test accuracy is that of the 50,000 validation images: the test labels are not public.
- Learning rates of methods the paper does not run stand below with their reasons.

`smoke`: one block of width 32, 20 steps of batch 16, no RandAugment, to see that all works.
"""

from ml_collections import ConfigDict

from rkbench.configs import common, default

# D.5; the learning rate is AlgoPerf's
_NADAMW = {
    "learning_rate": 8.445e-4,
    "b1": 0.9414,
    "b2": 0.9768,
    "eps": 1e-8,
    "weight_decay": 0.02,
}

PRESETS = {
    "nadamw": _NADAMW,
    "rk4": {"learning_rate": 0.16},  # D.5
    # RK4's learning rate, so that only the method differs
    "runge_kutta": {"learning_rate": 0.16},
    "rk": {"learning_rate": 0.16, "tableau": "rk4"},
    "sgd": {"learning_rate": 0.16},
    # the same effective rate, learning_rate / (1 - momentum)
    "momentum": {"learning_rate": 0.016, "momentum": 0.9},
    "rk4_momentum": {"learning_rate": 0.016, "momentum": 0.9},
    # NAdamW's relatives
    "adamw": _NADAMW,
    "adam": {"learning_rate": 8.445e-4, "b1": 0.9414, "b2": 0.9768, "eps": 1e-8},
    # not run by the paper and not tuned here
    "rk4_adagrad": {"learning_rate": 0.03, "eps": 0.1},
    "rk4_modified_adagrad": {"learning_rate": 0.03},
    "rk4_natural": {"learning_rate": 0.16},
    "rk4_dalr": {"c": 1.0, "p": 0.8},  # sets its step size: no schedule
}

SMOKE = {
    "model.variant": "mu/16",
    "augment.rand_augment_layers": 0,
    "batch_size": 16,
    "total_steps": 20,
    "schedule.warmup_steps": 2,
    "eval_batch_size": 50,
    "eval_every_steps": 10,
    "checkpoint_every_steps": 5,
    "log_every_steps": 5,
    "train_eval_size": 50,
    "input_workers": 0,
}
VARIANTS = {"smoke": common.Variant(SMOKE)}


def get_config(variant: str = "nadamw") -> ConfigDict:
    """The preset for `variant`: `<optimizer>[,smoke][,key=value...]`, see `configs/common.py`."""
    config = default.get_config()
    config.workload = "imagenet_vit"
    config.model["variant"] = "B/16"
    config.model["pooling"] = "mean"  # or "class_token"
    config.model["positions"] = "sincos"  # or "learned"
    config.model["representation_layer"] = False
    config.model["dropout"] = 0.0
    config.input_scaling = "channel_standardized"
    config.augment.rand_augment_layers = 2
    config.augment.rand_augment_magnitude = 10.0
    config.augment.mixup_alpha = 0.2
    config.label_smoothing = 0.2  # D.5
    config.schedule.name = "warmup_cosine"  # D.5
    config.schedule.warmup_steps = 9_333  # 5 %
    config.batch_size = 1_024  # D.5
    config.total_steps = 186_666  # D.5
    config.eval_every_steps = 1_866  # D.5
    config.train_eval_size = 10_000
    config.log_every_steps = 100
    config.input_workers = -1
    return common.with_variant(config, variant, PRESETS, VARIANTS)
