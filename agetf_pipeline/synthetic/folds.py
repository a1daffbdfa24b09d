"""Every wrinkle and fold of the skin, as the depth of soft lines."""

import numpy as np

from agetf_pipeline.synthetic.ageing import AgeCues, Proportions
from agetf_pipeline.synthetic.fields import Field, bump, groove, step
from agetf_pipeline.synthetic.view import View


def folds(view: View, p: Proportions, cues: AgeCues) -> Field:
    """Return the depth of every wrinkle and fold, 0 where there is none."""
    ax, fx, fy, px = view.ax, view.fx, view.fy, view.px
    total = np.zeros_like(ax)
    if cues.nasolabial > 0:
        top, bottom = p.nose_y - 0.01, p.mouth_y + 0.05
        t = np.clip((fy - np.float32(top)) * np.float32(1 / (bottom - top)), 0, 1)
        line = np.float32(p.nose_w + 0.022) + np.float32(p.mouth_w + 0.055 - p.nose_w) * t * t
        along = step(fy, top - 0.05, top + 0.05) * (1 - step(fy, bottom - 0.06, bottom + 0.05))
        total += (
            groove((ax - line) * np.float32(0.85), 0.021, px)
            * along
            * np.float32(1.35 * cues.nasolabial)
        )
    if cues.forehead > 0:
        middle = (p.brow_y + p.hairline_y) / 2 - 0.01
        waves = np.float32(0.012) * np.sin(fx * np.float32(13)) + np.float32(0.10) * ax * ax
        phase = (fy + waves - np.float32(p.brow_y)) * np.float32(1 / 0.082)
        nearest = (phase - np.floor(phase) - np.float32(0.5)) * np.float32(0.082)
        where = bump(fx, fy - np.float32(middle), 0.33, 0.125)
        total += groove(nearest, 0.013, px) * where * np.float32(1.25 * cues.forehead)
    if cues.frown > 0:
        where = bump(fx, fy - np.float32(p.brow_y + 0.015), 0.3, 0.062)
        total += groove(ax - np.float32(0.036), 0.012, px) * where * np.float32(0.9 * cues.frown)
    if cues.crows_feet > 0:
        dx = ax - np.float32(p.eye_x + p.eye_w * 0.92)
        dy = fy - np.float32(p.eye_y + 0.004)
        fan = dy / (np.abs(dx) + np.float32(0.035)) * np.float32(2.2)
        nearest = (fan - np.floor(fan) - np.float32(0.5)) * (np.abs(dx) + np.float32(0.035))
        where = bump(dx - np.float32(0.068), dy, 0.055, 0.085) * step(dx, 0.0, 0.04)
        total += (
            groove(nearest * np.float32(0.45), 0.010, px)
            * where
            * np.float32(1.5 * cues.crows_feet)
        )
    if cues.eye_bags > 0:
        dx = ax - np.float32(p.eye_x - 0.012)
        line = np.float32(p.eye_y + p.eye_low + 0.062) - np.float32(4.2) * dx * dx
        where = bump(dx, fy - line, 0.115, 0.2)
        total += groove(fy - line, 0.015, px) * where * np.float32(1.15 * cues.eye_bags)
    if cues.marionette > 0:
        line = np.float32(p.mouth_w + 0.012) + np.float32(0.22) * (fy - np.float32(p.mouth_y))
        where = bump(ax - line, fy - np.float32(p.mouth_y + 0.115), 0.2, 0.085)
        total += groove(ax - line, 0.017, px) * where * np.float32(0.95 * cues.marionette)
    if cues.mouth_lines > 0:
        phase = fx * np.float32(1 / 0.042)
        nearest = (phase - np.floor(phase) - np.float32(0.5)) * np.float32(0.042)
        where = bump(fx, fy - np.float32(p.mouth_y - 0.06), p.mouth_w * 0.75, 0.034)
        where += bump(fx, fy - np.float32(p.mouth_y + 0.085), p.mouth_w * 0.7, 0.03)
        total += groove(nearest, 0.008, px) * where * np.float32(0.7 * cues.mouth_lines)
        # The cheeks fold last, in arcs about the mouth.
        arc = np.sqrt(ax * ax + (fy - np.float32(p.mouth_y - 0.08)) ** 2) * np.float32(1 / 0.062)
        nearest = (arc - np.floor(arc) - np.float32(0.5)) * np.float32(0.062)
        where = bump(ax - np.float32(p.jaw_rx * 0.86), fy - np.float32(p.mouth_y - 0.03), 0.09, 0.2)
        total += groove(nearest, 0.011, px) * where * np.float32(0.75 * cues.mouth_lines)
    return total
