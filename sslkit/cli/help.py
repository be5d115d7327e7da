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
  --compile BOOL    compile the backbone for training steps (default: false)

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
                    weights of the run's seed; first of all, ResNet-18
  --data NAME       one or more of: cifar10, cifar100, fashion_mnist, stl10, shapes
  --protocol P      one or more of: knn, linear (default: all)
                    knn: cosine, vote weighted by exp(cosine / 0.07), k = 200 (and 20)
                    linear: logistic regression by L-BFGS on standardised features
  --layer L         one or more of the backbone's layers, such as stage2 or layer3, or all; their
                    maps are averaged over a grid (default: the features)
  --root DIR        where the data lies (default: SSLKIT_DATA, then ~/.cache/sslkit/data)
  --limit N         use the first N training images only
  --device D        cpu, cuda, cuda:1, ... (default: cuda where there is one)
  --out DIR         where the JSON files go (default: a run folder's evaluation/; the scores of
                    other targets are only printed)"""

DEMO = """\
usage: sslkit demo [options of sslkit pretrain]

Pretrain SimCLR on the embedded set 'shapes' (no download), then compare its backbone with
random weights by kNN and linear probe. The run folder is runs/demo, or demo-2, ..."""

VIEWS = """\
usage: sslkit views --config NAME_OR_FILE [--out FILE] [options]

Draw images of the data beside their views, with what was drawn for each: a look at a config
before it is trained. Nothing but the picture is written; the same command gives the same picture.

  --config C          a config file, or one of: {configs}
  --out FILE          the picture, .png, .jpg or .webp (default: views.png)
  --images N          how many images, 1 to 256 (default: 8)
  --overwrite         replace the picture if it is there

Anything in the config is an option too, as for 'sslkit pretrain', for example:
  --data.name cifar10   --data.root photos/   --seed_everything 3
  --model.view.size 96   --model.view.init_args.jitter 1   --model.view DINOViews

  A run's own config is one too: --config runs/NAME/config.yaml
  --help_all          every option there is"""


def help_of(command: str) -> str:
    """The help of a command.

    >>> help_of("demo").splitlines()[0]
    'usage: sslkit demo [options of sslkit pretrain]'
    """
    texts = {"pretrain": PRETRAIN, "evaluate": EVALUATE, "demo": DEMO, "views": VIEWS}
    return texts[command].replace("{configs}", ", ".join(config_names()))
