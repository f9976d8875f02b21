"""What ties the leaves together: config, data sets, stages, runs, trainings, commands."""
