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


EXPERIMENTS = [
    Experiment(
        "distillation",
        "Distillation with few images",
        "Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network* (2015): what a teacher says is above all a regulariser where data are few.",
        distillation,
        short=True,
    )
]
