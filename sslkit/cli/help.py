"""What ``--help`` prints, without importing what a command needs."""

from sslkit.cli.arguments import config_names

PRETRAIN = """\
usage: sslkit pretrain --config NAME_OR_FILE [--name NAME] [options]
       sslkit pretrain --resume RUN [--trainer.max_epochs N]

Train a backbone. The run folder is OUT/NAME and is never overwritten.

  --config C        a config file, or one of: {configs}
  --name NAME       the run's name (default: the config's)
  --out OUT         where run folders are (default: runs)
  --resume RUN      go on with a run folder from its last checkpoint
  --wandb MODE      auto, online, offline or disabled (default: auto)
  --online_every N  epochs between online signals; 0 for none (default: 1)

Anything in the config is an option too, for example:
  --data.root DIR   --data.batch_size N   --data.name cifar10
  --model.temperature 0.2   --model.backbone.name resnet50   --model.optimizer.lr 0.5
  --trainer.max_epochs N   --trainer.accelerator gpu   --trainer.devices 8
  --trainer.precision bf16-mixed   --trainer.accumulate_grad_batches N

  --print_config    print the whole configuration and stop
  --help_all        every option there is"""

EVALUATE = """\
usage: sslkit evaluate TARGET [TARGET ...] --data NAME [NAME ...] [options]

Score frozen backbones. Features are extracted once; the test split picks nothing.

  TARGET            a run folder, a checkpoint, a backbone.safetensors, a timm model's name
                    (its pretrained weights), or 'random': the target before it with fresh
                    weights; first of all, ResNet-18
  --data NAME       one or more of: cifar10, cifar100, fashion_mnist, stl10, shapes
  --protocol P      one or more of: knn, linear (default: all)
                    knn: cosine, vote weighted by exp(cosine / 0.07), k = 200 (and 20)
                    linear: logistic regression by L-BFGS on standardised features
  --root DIR        where the data lies (default: SSLKIT_DATA, then ~/.cache/sslkit/data)
  --limit N         use the first N training images only
  --device D        cpu, cuda, cuda:1, ... (default: cuda where there is one)
  --out DIR         where the JSON files go (default: a run folder's evaluation/; the scores of
                    other targets are only printed)"""

DEMO = """\
usage: sslkit demo [options of sslkit pretrain]

Pretrain SimCLR on the embedded set 'shapes' (no download), then compare its backbone with
random weights by kNN and linear probe. The run folder is runs/demo, or demo-2, ..."""


def help_of(command: str) -> str:
    """The help of a command.

    >>> help_of("demo").splitlines()[0]
    'usage: sslkit demo [options of sslkit pretrain]'
    """
    texts = {"pretrain": PRETRAIN, "evaluate": EVALUATE, "demo": DEMO}
    return texts[command].replace("{configs}", ", ".join(config_names()))
