"""The typed experiment: what a YAML file may say, checked before anything heavy starts."""

from boxwright.config.detectors import ModelConfig
from boxwright.config.experiment import ExperimentConfig
from boxwright.config.loading import apply_changes, check_config, dump_config, load_config

__all__ = ["ExperimentConfig", "ModelConfig", "apply_changes", "check_config", "dump_config", "load_config"]
