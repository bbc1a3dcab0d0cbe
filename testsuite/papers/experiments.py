"""The experiments."""
import gates
import pruning
import recurrent
import students

EXPERIMENTS = [*students.EXPERIMENTS, *pruning.EXPERIMENTS, *gates.EXPERIMENTS, *recurrent.EXPERIMENTS]
