"""`make bench`: every benchmark of speed in this folder, one after the other."""

import importlib
import pkgutil

import benchmarks


def main() -> None:
    """Run `main()` of each module."""
    for module in sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__)):
        if module.startswith("ageing"):  # `make bench-ageing`: an hour, and no speed
            continue
        # `make bench-moe` and `python -m benchmarks.caption_accuracy` measure no speed.
        if module not in ("__main__", "moe", "caption_accuracy"):
            print(f"== {module}", flush=True)
            importlib.import_module(f"benchmarks.{module}").main()


if __name__ == "__main__":
    main()
