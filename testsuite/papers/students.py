"""Distillation."""
from experiment import Experiment
from lab import Mnist


def distillation(lab):
    digits = Mnist()
    small = (*digits.all, "--data-limit", 3000, "--batch", 100, "--epochs", 10 if lab.short else 25)
    lab.new("mlp:784-256-256-10", "teacher.onnx", "--pixels")
    lab.train("teacher.onnx", "taught.onnx", *digits.all, "--batch", 100, "--epochs", 2 if lab.short else 6)
    teacher = digits.errors(lab, "taught.onnx")
    lab.row("teacher 784-256-256-10, all images, errors", "1.85% to 2.2%", f"{teacher:.2f}%", None)
    hard, soft = [], {4: [], 20: []}
    for seed in (0,) if lab.short else (0, 1):
        lab.new("mlp:784-200-200-10", f"student{seed}.onnx", "--pixels", "--seed", seed)
        lab.train(f"student{seed}.onnx", "hard.onnx", *small, "--seed", seed)
        hard.append(digits.errors(lab, "hard.onnx"))
        for t in soft:
            weights = ("--temperature", t, "--hard-weight", 0.1, "--cache-dir", "none")
            lab.train(f"student{seed}.onnx", "soft.onnx", *small, "--seed", seed, *weights, verb="distill", models=["taught.onnx"])
            soft[t].append(digits.errors(lab, "soft.onnx"))
    lab.row("student 784-200-200-10, 3,000 images, classes only, errors", "7.1% to 7.3%", ", ".join(f"{e:.2f}%" for e in hard), None)
    for t, errors in soft.items():
        ratio = sum(errors) / sum(hard)
        ours = ", ".join(f"{e:.2f}%" for e in errors) + f": {ratio:.2f} of that"
        lab.row(f"the same by the teacher at T={t}", "at most 0.65 of the errors with classes", ours, ratio <= 0.65)


def full(lab):
    digits = Mnist()
    wrong = lambda model: round(digits.errors(lab, model) / 100 * len(digits.labels))
    common = (*digits.all, "--batch", 128)
    lab.new("mlp:784-1200-1200-10", "teacher.onnx", "--pixels")
    noise = ("--dropout", 0.2, "--jitter", "2:28x28", "--max-norm", 3.9)
    lab.train("teacher.onnx", "taught.onnx", *common, *noise, "--epochs", 40, "--rate", 0.1)
    teacher = wrong("taught.onnx")
    lab.row("teacher 784-1200-1200-10 with dropout, a largest norm, pictures moved by up to 2 pixels: errors of 10,000", "67, at most 80", str(teacher), teacher <= 80)
    lab.new("mlp:784-800-800-10", "student.onnx", "--pixels")
    lab.train("student.onnx", "hard.onnx", *common, "--epochs", 30)
    hard = wrong("hard.onnx")
    lab.row("student 784-800-800-10, classes only: errors", "146, from 130 to 165", str(hard), 130 <= hard <= 165)
    lab.train("student.onnx", "soft.onnx", *common, "--epochs", 60, "--temperature", 20, "--hard-weight", 0.1, "--cache-dir", "none", verb="distill", models=["taught.onnx"])
    soft = wrong("soft.onnx")
    lab.row("the same by the teacher at T=20, pictures not moved: errors", "74, at most 95 and 40 fewer than with classes", str(soft), soft <= min(95, hard - 40))


EXPERIMENTS = [
    Experiment(
        "distillation",
        "Distillation with few images",
        "Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network* (2015): what a teacher says is above all a regulariser where data are few.",
        distillation,
        short=True,
    ),
    Experiment(
        "distillation-full",
        "Distillation, as large as in the paper",
        "Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network* (2015), section 3: the student learns from a large net with noise, and has none itself. Half of the elements left out, as in the paper, need more passes than 100 (122 errors): here it is a fifth, in 40.",
        full,
        full=True,
    ),
]
