# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What each experiment runs, as data: lists of runs, and which of them are compared."""
from dataclasses import dataclass, field

NAMES = ("learning_rates", "lm", "ablation", "quantile", "noise", "vision",
         "precision_along_training", "tails", "cost", "tuning", "momentum", "parts", "competitors",
         "long", "guards", "others", "ranks", "transfer", "finetune_rates", "finetune")
VISION = ("vit", "resnet")

# Chosen so that each experiment takes at most an hour on two cores.
SIZES = {
    "small": dict(task="lm", width=128, layers=4, heads=4, context=64, batch=16, steps=600,
                  evaluations=25, validation_examples=256),
    "larger": dict(task="lm", width=192, layers=4, heads=6, context=64, batch=16, steps=500,
                   evaluations=25, validation_examples=256),
    "short": dict(task="lm", width=128, layers=4, heads=4, context=64, batch=16, steps=300,
                  evaluations=3, validation_examples=256),
    "tiny": dict(task="lm", width=96, layers=3, heads=3, context=64, batch=16, steps=300,
                 evaluations=3, validation_examples=256),
    "narrow": dict(task="lm", width=96, layers=3, heads=3, context=64, batch=16, steps=600,
                   evaluations=25, validation_examples=256),
    "narrow, long": dict(task="lm", width=96, layers=3, heads=3, context=64, batch=16, steps=3000,
                         evaluations=50, validation_examples=256),
    "small, long": dict(task="lm", width=128, layers=4, heads=4, context=64, batch=16, steps=3000,
                        evaluations=50, validation_examples=256),
    "wide": dict(task="lm", width=192, layers=4, heads=6, context=64, batch=16, steps=600,
                 evaluations=25, validation_examples=256),
    **{f"width {width}": dict(task="lm", width=width, layers=4, heads=width // 32, context=64,
                              batch=16, steps=300, evaluations=1, validation_examples=256)
       for width in (64, 128, 256)},
    "finetuning": dict(task="lm", width=96, layers=3, heads=3, context=64, batch=16, steps=300,
                       evaluations=3, validation_examples=256),
    "vit": dict(task="vit", width=64, layers=4, heads=4, batch=64, steps=800, evaluations=5,
                validation_examples=10000),
    "vit, short": dict(task="vit", width=64, layers=4, heads=4, batch=64, steps=400, evaluations=2,
                       validation_examples=10000),
    "resnet": dict(task="resnet", width=16, layers=1, batch=64, steps=800, evaluations=5,
                   validation_examples=10000),
}
TUNED_AS = {"larger": "small", "short": "small", "vit, short": "vit"}
QUICK = {
    "lm": dict(width=32, layers=1, heads=2, context=32, batch=4, steps=24, evaluations=6,
               validation_examples=32),
    "vit": dict(width=32, layers=1, heads=2, batch=8, steps=10, evaluations=2,
                validation_examples=64),
    "resnet": dict(width=8, layers=1, batch=8, steps=10, evaluations=2, validation_examples=64),
}

OPTIMIZERS = {
    "AdamW": dict(optimizer="adamw"),
    "Muon": dict(optimizer="muon"),
    "ROOT as published": dict(optimizer="root_paper"),
    "ROOT": dict(optimizer="root"),
}
UNBALANCED = dict(optimizer="root", update_beta=0)
TUNING_SEED = 7

# What `tuning` chooses from, on clean data: as many candidates for each.
RISES = ("0.8:300", "0.85:300", "0.85:600")
WIDE_RATES = (8e-3, 11.3e-3, 16e-3, 22.6e-3, 32e-3, 45.2e-3)


def with_rates(changes, key, values, rates=(16e-3, 32e-3)):
    return [changes | {key: value, "lr": rate} for value in values for rate in rates]


CANDIDATES = {
    "AdamW": [dict(optimizer="adamw", lr=rate)
              for rate in (2e-3, 2.8e-3, 4e-3, 5.7e-3, 8e-3, 11.3e-3)],
    "AdamW, clipped": with_rates(dict(optimizer="adamw"), "clip", (0.5, 1.0, 2.0), (4e-3, 8e-3)),
    "Muon": [dict(optimizer="muon", lr=rate) for rate in WIDE_RATES],
    "Muon, tuned momentum": with_rates(dict(optimizer="muon"), "momentum", (0.8, 0.85, 0.9)),
    "Muon, rising momentum": with_rates(dict(optimizer="muon"), "momentum_warmup", RISES),
    "ROOT, momentum .95": [UNBALANCED | dict(momentum=0.95, lr=rate) for rate in WIDE_RATES],
    "ROOT, rising momentum":
        with_rates(UNBALANCED | dict(momentum=0.95), "momentum_warmup", RISES),
    "ROOT, tuned momentum": with_rates(UNBALANCED, "momentum", (0.8, 0.85, 0.9)),
    "ROOT, tuned, balanced":
        with_rates(dict(optimizer="root", update_beta=0.95), "momentum", (0.8, 0.85, 0.9)),
}
# What `finetune_rates` chooses from: as many rates for each, a factor of two apart.
FINETUNERS = {label: OPTIMIZERS[label] for label in ("AdamW", "Muon")} | {
    "Muon, lower momentum": dict(optimizer="muon", momentum=0.85), "ROOT": OPTIMIZERS["ROOT"]}
FINETUNED = {"all weights": {}, "adapters": dict(adapters=8)}
FIRST_FINETUNING_RATE = {("all weights", "adamw"): 1e-3, ("all weights", "muon"): 2e-3,
                         ("all weights", "root"): 2e-3, ("adapters", "adamw"): 4e-3,
                         ("adapters", "muon"): 8e-3, ("adapters", "root"): 8e-3}
FINETUNING_CANDIDATES = {
    f"{label}, {what}": [changes | FINETUNED[what] |
                         dict(lr=FIRST_FINETUNING_RATE[what, changes["optimizer"]] * 2**i)
                         for i in range(5)]
    for what in FINETUNED
    for label, changes in FINETUNERS.items()}
COMPETITORS = ("Muon", "Muon, tuned momentum", "Muon, lower momentum")
TUNED_STEPS = {"small": 600, "tiny": 300, "vit": 400, "resnet": 400}
FIRST_RATES = (4e-3, 8e-3, 16e-3)
RATE_LIMITS = (0.25e-3, 256e-3)
# Until learning_rates has run: those of the demo (docs/learning-rates.md).
FALLBACK_RATES = {"adamw": 4e-3, "muon": 16e-3, "root_paper": 16e-3, "root": 16e-3}


@dataclass(frozen=True)
class Run:
    group: str  # runs are compared within a group
    label: str
    seed: int
    settings: dict
    alone: bool = False  # nothing beside it, all threads: for timings
    files: tuple = ()  # "precision", "tails", "weights": what it writes beside its evaluations
    start: "Run" = None  # the run whose weights it begins with
    texts: tuple = (0, None)  # from which text to which it reads


@dataclass
class Plan:
    runs: list
    metric: str = "validation_loss"
    baselines: tuple = ("AdamW", "Muon")
    notes: list = field(default_factory=list)


class Planner:
    """Makes the plans, with learning rates {(size, optimizer): rate}."""

    def __init__(self, quick, rates, has_images, chosen=None):
        """chosen: what `tuning` found, {label: changes}; else the first candidate of each."""
        self.quick, self.rates, self.has_images = quick, rates, has_images
        self.chosen = {label: candidates[0] for label, candidates in
                       (CANDIDATES | FINETUNING_CANDIDATES).items()}
        self.chosen |= chosen or {}

    def vision_sizes(self):
        return VISION if self.has_images else ()

    def seeds(self, count):
        return range(1, (2 if self.quick else count) + 1)

    def size(self, name):
        size = dict(SIZES[name])
        if self.quick:
            size.update(QUICK[size["task"]])
        if size["task"] in VISION:
            size["test"] = True
        return size

    def rate(self, size, optimizer):
        return self.rates.get((TUNED_AS.get(size, size), optimizer), FALLBACK_RATES[optimizer])

    def run(self, size, label, seed, changes, group=None, **kwargs):
        settings = self.size(size) | changes
        settings.setdefault("lr", self.rate(size, settings["optimizer"]))
        return Run(group or size, label, seed, settings, **kwargs)

    def plan(self, name):
        return getattr(self, name)()

    def tuning_run(self, size, optimizer, rate):
        label = next(k for k, v in OPTIMIZERS.items() if v["optimizer"] == optimizer)
        steps = self.size(size)["steps"] if self.quick else TUNED_STEPS[size]
        changes = dict(optimizer=optimizer, lr=rate, steps=steps, evaluations=1)
        run = self.run(size, label, TUNING_SEED, changes)
        run.settings.pop("test", None)  # the test images choose nothing
        return run

    def tuning(self):
        """Each candidate is a run of its own group, so that the report shows them side by side."""
        return Plan([self.run("narrow", label, TUNING_SEED, changes | dict(evaluations=1),
                              group=", ".join(f"{k} {v}" for k, v in changes.items()
                                              if k != "optimizer"))
                     for label, candidates in CANDIDATES.items()
                     for changes in candidates[:2 if self.quick else None]], baselines=())

    def momentum(self):
        """How long the momentum should rise in short and in long runs, and what a constant one does."""
        rate = self.chosen["ROOT, rising momentum"]["lr"]
        variants = {f"constant {mu}": dict(momentum=mu) for mu in (0.7, 0.8, 0.85, 0.9, 0.95)}
        for start in (0.8, 0.85):
            for steps in (300, 600, 1500, 3000):
                variants[f"from {start} over {steps}"] = dict(momentum=0.95,
                                                                momentum_warmup=f"{start}:{steps}")
        few = ("constant 0.7", "constant 0.8", "constant 0.85", "constant 0.9", "constant 0.95",
               "from 0.85 over 600", "from 0.85 over 1500", "from 0.85 over 3000")
        return Plan([self.run(size, label, TUNING_SEED, UNBALANCED | dict(lr=rate) | changes)
                     for size in ("narrow", "narrow, long") for label, changes in variants.items()
                     if size == "narrow" or label in few], baselines=())

    def parts(self):
        """What each part of ROOT adds to the loss on clean text, at one momentum and rate."""
        base = UNBALANCED | dict(momentum=0.85, lr=32e-3)
        balanced = dict(update_beta=0.95)
        split, wider, none = (dict(filter=f, place="gradient" if f != "none" else "momentum")
                              for f in ("scaled:3:3", "scaled:5:3", "none"))
        inverses, quintics, exact = (dict(orthogonalization=o) for o in ("default", "muon", "exact"))
        variants = {
            "quintics of Muon, no split": none | quintics,
            "inverses, no split": none | inverses,
            "exact, no split": none | exact,
            "inverses, scaled(3, 3)": split | inverses,
            "inverses, scaled(5, 3)": wider | inverses,
            "inverses, no split, balanced": none | inverses | balanced,
            "inverses, scaled(3, 3), balanced": split | inverses | balanced,
            "quintics of Muon, no split, balanced": none | quintics | balanced,
        }
        return Plan([self.run("narrow", label, seed, base | changes)
                     for seed in self.seeds(3) for label, changes in variants.items()],
                    baselines=("quintics of Muon, no split", "inverses, no split"))

    def contestants(self):
        """With the settings that `tuning` chose at 600 steps; guards have those of what they guard. The
        lower momentum keeps the rate of the higher one, which longer runs want."""
        tuned = self.chosen["ROOT, tuned momentum"]
        guarded = tuned | dict(place="all-gradients")
        lower = dict(momentum=0.85, lr=16e-3)
        return {label: self.chosen[label] for label in CANDIDATES} | {
            "Muon, lower momentum": dict(optimizer="muon") | lower,
            "ROOT, unbalanced": UNBALANCED | lower,
            "ROOT": dict(optimizer="root") | lower,
            "ROOT, tuned, all gradients": guarded,
            "ROOT, tuned, gate": guarded | dict(gate="1.4:1"),
            "ROOT, tuned, gate of three": guarded | dict(gate="1.4:3"),
        }

    def cells(self, seeds):
        """{size: seeds}, from the cheapest to the dearest."""
        extras = ("AdamW, clipped", "ROOT, rising momentum", "ROOT, tuned, all gradients",
                  "ROOT, tuned, gate of three")
        return Plan([self.run(size, label, seed, changes)
                     for size, count in seeds.items() for seed in self.seeds(count)
                     for label, changes in self.contestants().items()
                     if size == "narrow" or label not in extras], baselines=COMPETITORS)

    def competitors(self):
        return self.cells({"narrow": 5, "small": 5, "wide": 3})

    def long(self):
        return self.cells({"narrow, long": 3, "small, long": 3})

    def guards(self):
        kinds = ("batch:3:1", "spikes:5", "random:0.2:1", "heavy:0.5", "heavy:4", "rank:4:10",
                 "batch:10:1", "spikes:1", "rank:4:1")
        contestants = {label: changes for label, changes in self.contestants().items()
                       if label in ("AdamW, clipped", "Muon", "Muon, tuned momentum", "ROOT, unbalanced",
                                    "ROOT", "ROOT, tuned, all gradients", "ROOT, tuned, gate",
                                    "ROOT, tuned, gate of three")}
        runs = [self.run("narrow", label, seed,
                         changes | ({} if group == "clean" else dict(noise=group)), group=group)
                for seed in self.seeds(3)
                for group in ("clean", *kinds[:2 if self.quick else None])
                for label, changes in contestants.items()]
        return Plan(runs, baselines=("Muon", "AdamW, clipped"))

    def others(self):
        """The rule of parameters that are no matrices, and the decay: one thing changed at a time."""
        base = UNBALANCED | dict(momentum=0.85, lr=16e-3)
        variants = {"as it is": {}, "rate × 1/2": dict(adamw_lr_ratio=0.5),
                    "rate × 2": dict(adamw_lr_ratio=2.0), "rate × 4": dict(adamw_lr_ratio=4.0),
                    "β₂ = .9": dict(beta2=0.9), "β₂ = .99": dict(beta2=0.99),
                    "cautious decay": dict(cautious_decay=True),
                    "decay × 1/2": dict(weight_decay=0.05), "decay × 2": dict(weight_decay=0.2),
                    "cautious decay × 2": dict(cautious_decay=True, weight_decay=0.2),
                    "balanced": dict(update_beta=0.95), "rate × 1/4": dict(adamw_lr_ratio=0.25),
                    "rate × 1/2, balanced": dict(adamw_lr_ratio=0.5, update_beta=0.95),
                    "Muon": dict(optimizer="muon"),
                    "Muon, rate × 1/2": dict(optimizer="muon", adamw_lr_ratio=0.5)}
        return Plan([self.run(size, label, seed, base | changes)
                     for size, count in (("narrow", 3), ("narrow, long", 2))
                     for seed in self.seeds(count) for label, changes in variants.items()],
                    baselines=("as it is", "Muon"))

    def ranks(self):
        """What joins the gradients of ranks of which each has heavy tails of its own, or one sends garbage."""
        base = UNBALANCED | dict(momentum=0.85, lr=16e-3)
        heavy = {"no split": base | dict(filter="none", place="momentum"), "of the mean": base,
                 "of each rank and of the mean": base | dict(filter_ranks=True),
                 "median of ranks": base | dict(median_of_ranks=True)}
        garbage = {label: base | changes for label, changes in {
            "of the mean": {}, "of each rank and of the mean": dict(filter_ranks=True),
            "median of ranks": dict(median_of_ranks=True),
            "limit_ranks(1)": dict(limit_ranks=1.0)}.items()}
        muon = dict(optimizer="muon")
        noises = {"heavy-ranks:4:0": heavy, "heavy-ranks:4:1": heavy, "heavy-ranks:4:4": heavy,
                  "heavy-ranks:16:4": heavy, "rank:2:10": garbage,
                  "rank:4:10": garbage | {"Muon": muon,
                                          "Muon, limit_ranks(1)": muon | dict(limit_ranks=1.0)}}
        return Plan([self.run("narrow", label, seed, changes | dict(noise=noise), group=noise)
                     for seed in self.seeds(3)
                     for noise in list(noises)[:2 if self.quick else None]
                     for label, changes in noises[noise].items()],
                    baselines=("of the mean",))

    def transfer(self):
        """Whether the best rate stays where it is while the width grows."""
        return Plan([self.run(size, f"{rate:g}", TUNING_SEED, changes | dict(lr=rate),
                              group=f"{label}, {size}")
                     for label, changes in OPTIMIZERS.items() if label != "ROOT as published"
                     for size in ("width 64", "width 128", "width 256")
                     for rate in (2e-3, 4e-3, 8e-3, 16e-3, 32e-3)], baselines=())

    def trained_on_first_text(self, label, seed):
        return self.run("narrow", label, seed, FINETUNERS[label] | dict(evaluations=1),
                        files=("weights",), texts=(0, 1))

    def finetuning_run(self, label, changes, seed, trained_by, group):
        return self.run("finetuning", label, seed, changes, group=group, texts=(1, 2),
                        start=self.trained_on_first_text(trained_by, seed))

    def finetune_rates(self):
        """Each rate is a group, from weights that AdamW has trained."""
        return Plan([self.finetuning_run(label, changes, TUNING_SEED, "AdamW",
                                         f"rate {i + 1} of 5")
                     for label, candidates in FINETUNING_CANDIDATES.items()
                     for i, changes in enumerate(candidates[:2 if self.quick else None])],
                    baselines=())

    def finetune(self):
        """A model trained on the first text goes on with the second."""
        return Plan([self.finetuning_run(label, self.chosen[f"{label}, {what}"], seed,
                                         label if own else "AdamW",
                                         f"{what}, from {'its own' if own else 'AdamW’s'} weights")
                     for seed in self.seeds(5) for what in FINETUNED for own in (False, True)
                     for label in FINETUNERS],
                    baselines=("AdamW", "Muon", "Muon, lower momentum"))

    def lm(self):
        runs = []
        for size, count in (("small", 5), ("larger", 3)):
            for seed in self.seeds(count):
                runs += [self.run(size, label, seed, changes)
                         for label, changes in OPTIMIZERS.items()]
                steps = self.size(size)["steps"] * 6 // 10
                runs.append(self.run(size, "ROOT, 60 % of the steps", seed,
                                     dict(optimizer="root", steps=steps)))
        return Plan(runs + self.timings())

    def timings(self):
        """Short runs for the time of a step; each seed is a repetition."""
        steps = 10 if self.quick else 40
        return [self.run(size, label, seed, changes | dict(steps=steps, evaluations=1),
                         group=f"{size}, timing", alone=True)
                for size in ("small", "larger") for seed in self.seeds(3)
                for label, changes in OPTIMIZERS.items()]

    def cost(self):
        return self.lm()

    def ablation(self):
        published, scaled = "published", "scaled:3:3"
        variants = [
            # orthogonalization, without a split
            ("none", "momentum", "classic"), ("none", "momentum", "muon"),
            ("none", "momentum", "muon:8"), ("none", "momentum", "default"),
            ("none", "momentum", "exact"),
            # the published split, where it was published and before the momentum
            (published, "momentum", "classic"), (published, "momentum", "published"),
            (published, "momentum", "default"),
            (published, "gradient", "published"), (published, "gradient", "default"),
            # the scaled split
            (scaled, "momentum", "muon"), (scaled, "momentum", "default"),
            (scaled, "gradient", "muon"), (scaled, "gradient", "default"),
            (scaled, "gradient", "default:3"), (scaled, "gradient", "default:4"),
            ("scaled:2:3", "gradient", "default"), ("scaled:5:3", "gradient", "default"),
            ("scaled:3:1", "gradient", "default"),
            # other splits
            ("rows:5", "gradient", "default"), ("columns:5", "gradient", "default"),
            ("median:8", "gradient", "default"), ("tail:1.5", "gradient", "default"),
            ("rank-one:5", "gradient", "default"),
        ]
        if self.quick:
            variants = variants[1:4] + variants[-3:]
        runs = []
        for seed in self.seeds(3):
            for split, place, orthogonalization in variants:
                label = (f"{orthogonalization}, no split" if split == "none"
                         else f"{orthogonalization}, {split} on {place}")
                runs.append(self.run("short", label, seed,
                                     dict(optimizer="root", filter=split, place=place,
                                          orthogonalization=orthogonalization)))
        return Plan(runs, baselines=("default, no split", "muon, no split"), notes=[
            "All runs have the momentum, the learning rate and the scale of ROOT's default. At "
            "these shapes the published triples are Muon's: those of the paper are for 2048 rows."])

    def quantile(self):
        values = (".80", ".90", "1.0") if self.quick else (".80", ".85", ".90", ".95", ".99", "1.0")
        sizes = ("short", "vit, short") if self.has_images else ("short",)
        runs = [self.run(size, f"q = {q}", seed,
                         dict(optimizer="root", filter=f"quantile:{q}", place="momentum",
                              orthogonalization="default"))
                for size in sizes for seed in self.seeds(3) for q in values]
        return Plan(runs, baselines=("q = 1.0", "q = .90"))

    def noise(self):
        kinds = ("heavy:0.5", "heavy:4", "spikes:1", "spikes:5", "batch:10:1", "batch:3:1")
        everywhere = OPTIMIZERS | {"AdamW, clipped": dict(optimizer="adamw", clip=1.0)}
        root = dict(optimizer="root", orthogonalization="default")
        candidates = {
            "default, no split": root | dict(filter="none", place="momentum"),
            "default, quantile:.90 on momentum":
                root | dict(filter="quantile:.90", place="momentum"),
            "ROOT, AdamW's gradients split, too": dict(optimizer="root", place="all-gradients"),
        } | {
            f"default, {split} on gradient": root | dict(filter=split, place="gradient")
            for split in ("scaled:1:3", "scaled:5:3", "tail:1.5", "median:8")
        }
        conditions = {kind: everywhere for kind in ("clean", *kinds)}
        for kind in ("clean", "heavy:4", "spikes:5"):
            conditions[kind] = everywhere | candidates
        if self.quick:
            conditions = {"clean": everywhere, "heavy:4": everywhere, "spikes:5": everywhere}
        runs = [self.run("tiny", label, seed,
                         changes | ({} if group == "clean" else dict(noise=group)), group=group)
                for seed in self.seeds(3) for group, variants in conditions.items()
                for label, changes in variants.items()]
        return Plan(runs, baselines=("Muon", "AdamW"))

    def vision(self):
        runs = [self.run(size, label, seed, changes) for size in self.vision_sizes()
                for seed in self.seeds(3)
                for label, changes in (OPTIMIZERS | {
                    "ROOT, published split q = .85": dict(optimizer="root", filter="quantile:.85",
                                                          place="momentum"),
                    "Muon, lower momentum": dict(optimizer="muon", momentum=0.85),
                    "ROOT, momentum .95": UNBALANCED | dict(momentum=0.95),
                    "ROOT, unbalanced": UNBALANCED}).items()]
        return Plan(runs, metric="validation_accuracy")

    def precision_along_training(self):
        runs = [self.run(size, label, 1, OPTIMIZERS[label] | dict(observations=10),
                         group=f"{size}, trained by {label}", files=("precision",))
                for size, label in [("small", "ROOT"), ("small", "Muon")] +
                [(size, "ROOT") for size in self.vision_sizes()]]
        return Plan(runs, baselines=())

    def tails(self):
        runs = [self.run("small", "ROOT", 1, OPTIMIZERS["ROOT"] | dict(observations=5),
                         files=("tails",))]
        return Plan(runs, baselines=())
