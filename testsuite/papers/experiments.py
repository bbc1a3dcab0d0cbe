"""The experiments."""
import exits
import gates
import mixture
import pruning
import reading
import recurrent
import students

EXPERIMENTS = [*students.EXPERIMENTS, *pruning.EXPERIMENTS, *gates.EXPERIMENTS, *mixture.EXPERIMENTS, *exits.EXPERIMENTS, *recurrent.EXPERIMENTS, *reading.EXPERIMENTS]
