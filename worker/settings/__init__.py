"""Every environment variable of the worker: typed, documented, read here and nowhere else.

`Settings.load()` reads all groups and raises one `SettingsError` that lists everything that is
wrong; `describe()` feeds the reference page in docs.

Blank values count as unset, because Coolify and RunPod pass variables that were left empty.
"""

from worker.settings.connections import ApiSettings, QueueSettings, StorageSettings
from worker.settings.engine import ModelSettings, PipelineSettings
from worker.settings.process import SyncSettings, WorkerSettings
from worker.settings.reference import VariableDoc, child_environment, describe
from worker.settings.whole import Settings

__all__ = [
    "ApiSettings",
    "ModelSettings",
    "PipelineSettings",
    "QueueSettings",
    "Settings",
    "StorageSettings",
    "SyncSettings",
    "VariableDoc",
    "WorkerSettings",
    "child_environment",
    "describe",
]
