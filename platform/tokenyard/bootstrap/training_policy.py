"""How the settings bound fine-tuning."""

from tokenyard.core.training import TrainingResources
from tokenyard.finetune.policy import TrainingPolicy
from tokenyard.settings import Settings


def training_policy(settings: Settings) -> TrainingPolicy:
    """Return the policy that gateway and worker share."""
    return TrainingPolicy(
        resources=TrainingResources(
            cpus=settings.training_num_cpus,
            gpus=settings.training_num_gpus,
            timeout_s=settings.training_timeout_s,
        )
    )
