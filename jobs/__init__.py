"""Asset jobs, schedules, sensors, and the launcher of the main job."""
