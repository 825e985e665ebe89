"""What the pipeline publishes: the body's GLB, pictures to look at, and the JSON documents."""

from worker.avatar.export.writer import Exported, ExportInputs, ExportOptions, write_outputs

__all__ = ["ExportInputs", "ExportOptions", "Exported", "write_outputs"]
