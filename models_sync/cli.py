"""`models-sync`."""


def main() -> None:
    """Run the command line."""
