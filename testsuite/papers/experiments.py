"""The experiments."""
import gates
import mixture
import pruning
import reading
import recurrent
import students

EXPERIMENTS = [*students.EXPERIMENTS, *pruning.EXPERIMENTS, *gates.EXPERIMENTS, *mixture.EXPERIMENTS, *recurrent.EXPERIMENTS, *reading.EXPERIMENTS]
