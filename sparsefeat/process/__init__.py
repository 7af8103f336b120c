"""What a long-running program does: progress that people can follow, workers that end with it."""
