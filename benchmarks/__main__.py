"""`make bench`: every benchmark of speed in this folder, one after the other."""

import importlib
import pkgutil

import benchmarks


def main() -> None:
    """Run `main()` of each module."""
    for module in sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__)):
        if module not in ("__main__", "moe"):  # `make bench-moe`: minutes, and no speed
            print(f"== {module}", flush=True)
            importlib.import_module(f"benchmarks.{module}").main()


if __name__ == "__main__":
    main()
