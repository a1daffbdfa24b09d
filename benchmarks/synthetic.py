"""Faces drawn per second on one thread, at several sizes.

    python benchmarks/synthetic.py [--num-faces 200]

Prints wall-clock and processor time: on a shared machine only the second is a property of the code.
"""

import argparse
import time

from agetf_pipeline.synthetic.faces import draw_face, draw_identity


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-faces", type=int, default=200)
    num_faces = parser.parse_args().num_faces
    identities = [draw_identity(seed) for seed in range(num_faces)]
    for size_px in (64, 128, 256):
        draw_face(identities[0], 30, size_px)
        wall_s, processor_s = time.perf_counter(), time.process_time()
        for index, identity in enumerate(identities):
            draw_face(identity, index * 7 % 101, size_px)
        wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
        print(
            f"{size_px:4d} px: {num_faces / wall_s:7.1f} faces/s wall clock, "
            f"{num_faces / processor_s:7.1f} faces/s of one core"
        )


if __name__ == "__main__":
    main()
