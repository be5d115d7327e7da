"""What ``--help`` prints, without importing what a command needs."""

from sslkit.cli.arguments import config_names

PRETRAIN = """\
usage: sslkit pretrain --config NAME_OR_FILE [--name NAME] [options]
       sslkit pretrain --resume RUN [--trainer.max_epochs N]
       sslkit pretrain --config NAME_OR_FILE --profile-step N [options]

Train a backbone. The run folder is OUT/NAME and is never overwritten.

  --config C        a config file, or one of: {configs}
  --name NAME       the run's name (default: the config's)
  --out OUT         where run folders are (default: runs)
  --resume RUN      go on with a run folder from its last checkpoint; with another max_epochs than
                    before, more or fewer, the learning rate goes on along the schedule of that
  --start TARGET    begin with the weights of a run, a checkpoint or a backbone.safetensors, of
                    torchvision:NAME or timm:NAME (NAME=FILE for a file of its weights)
  --wandb MODE      auto, online, offline or disabled (default: auto)
  --online_every N  epochs between online signals; 0 for none (default: 1)
  --compile BOOL    compile the backbone for training steps (default: false)
  --profile-step N  time N steps and stop: the share of data, views, network, loss, optimiser and
                    loop, printed and drawn in OUT/NAME-step.png and .json; no run folder

Anything in the config is an option too, for example:
  --data.root DIR   --data.batch_size N   --data.name cifar10
  --data.per_class K (images of a class in a batch)   --data.held_out N (of each class, in none)
  --model.temperature 0.2   --model.backbone.name resnet50   --model.optimizer.lr 0.5
  --trainer.max_epochs N   --trainer.accelerator gpu   --trainer.devices 8
  --trainer.precision bf16-mixed   --trainer.accumulate_grad_batches N

  --print_config    print the whole configuration and stop
  --help_all        every option there is"""

EVALUATE = """\
usage: sslkit evaluate TARGET [TARGET ...] --data NAME [NAME ...] [options]
       sslkit evaluate TARGET [TARGET ...] --suite simclr12 [options]

Score backbones. Features are extracted once; the test split picks nothing. What is finished is
not done again: the same command goes on.

  TARGET            a run folder, a checkpoint, a backbone.safetensors; a timm model's name or
                    torchvision:NAME (their pretrained weights), timm:NAME=FILE or
                    torchvision:NAME=FILE (weights on disk); or 'random': the target before it
                    with fresh weights of the run's seed; first of all, ResNet-18
  --data NAME       one or more of: cifar10, cifar100, food101, birdsnap, sun397, stanford_cars,
                    fgvc_aircraft, voc2007, dtd, oxford_pets, caltech101, flowers102,
                    fashion_mnist, stl10, shapes; folder:DIR with train/ and test/ in it;
                    torchvision:CLASS; hf:PATH; for retrieval alone, on classes that were not
                    trained on: cub200, cars196, cub200_cropped, cars196_cropped, sop, inshop,
                    omniglot, and classes:DIR, any folder of class folders
  --suite simclr12  the 12 sets of the SimCLR paper; one that is absent is a cell that says so
  --protocol P      one or more of (default: knn linear):
                    knn        cosine, votes weighted by exp(cosine / 0.07), k = 200 (and 20)
                    linear     logistic regression by L-BFGS, L2 chosen out of 45 on validation
                    finetune   the whole network, 20,000 steps at each point of a 7 x 8 grid
                    semi1, semi10   the whole network, on 1 % and 10 % of the labels
                    retrieval  Recall@1, 2, 4, 8, MAP@R, NMI and F1 of the test images (inshop:
                               of its queries among the gallery), and two pictures of them
  --steps N         of finetune and semi at most; the table says what was cut
  --grid RxD        of finetune's grid R learning rates and D weight decays, such as 3x2
  --layer L         one or more of the backbone's layers, such as stage2 or layer3, or all; their
                    maps are averaged over a grid (default: the features)
  --root DIR        where the data lies (default: SSLKIT_DATA, then ~/.cache/sslkit/data)
  --limit N         use N training images only (of files a fixed draw); test stays whole
  --device D        cpu, cuda, cuda:1, ... (default: cuda where there is one)
  --out DIR         where the JSON files and the table go (default: a run folder's evaluation/;
                    the scores of other targets are only printed)
  --cache DIR       where features, and the points of finetune's grid, are kept; off for nowhere
                    (default: with --suite and what trains a run folder's evaluation/features,
                    else off)
  --again           make scores again that are there

The table goes to table/ as .md, .csv, .tex, .json and .png. Over several processes, each with
a part of the images: torchrun --nproc_per_node 2 -m sslkit evaluate ..."""

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


EXPORT = """\
usage: sslkit export RUN [--out DIR] [--no_onnx] [--overwrite]

Write a run's backbone for other libraries, each file compared with the run on random images:
backbone.safetensors under torchvision's or timm's own keys (with backbone.json for sslkit),
backbone.onnx of any batch, and README.md: data, method, scores, how to load each file.

  RUN               a run folder; a checkpoint or a backbone.safetensors with --out
  --out DIR         where the files go (default: RUN/export)
  --no_onnx         leave ONNX out, which needs: pip install 'sslkit[export]'
  --overwrite       replace an export that is there"""

EMBED = """\
usage: sslkit embed TARGET --data NAME --out FILE [options]

Write the features of images, a row each. Images that cannot be read have no row, and are named.

  TARGET            as for 'sslkit evaluate', but 'random' is a ResNet-18
  --data NAME       any set of 'sslkit evaluate', or folder:DIR: any folder of images; one with
                    train/ and test/ has classes
  --split S         train or test (default: train); a folder without them has none
  --out FILE        .parquet: path or index, label, features (pip install 'sslkit[export]')
                    .npz: features, labels, paths or index
                    .npy: features alone, float32 (N, D), and FILE.paths.txt, a line a row
  --root DIR        where the data lies (default: SSLKIT_DATA, then ~/.cache/sslkit/data)
  --limit N         the first N images only
  --device D        cpu, cuda, cuda:1, ... (default: cuda where there is one)
  --overwrite       replace FILE if it is there"""

NEIGHBOURS = """\
usage: sslkit neighbours TARGET --data NAME [--queries N | FILE ...] [--k K] [options]

Draw images, a row each, beside the nearest others of the split by the cosine of their features.
Whole green frame: the query's class; broken red frame: another; grey: no label. What is drawn is
printed too: query, neighbour and cosine, separated by tabs.

  TARGET, --data, --split, --root, --limit, --device   as for 'sslkit embed'
  --queries Q       how many images of the set, 1 to 64 (default: 8), or image files, of the set
                    or not; one that is not is taken whole, where those of the set are cropped too
  --k K             neighbours of each, 1 to 64 (default: 8)
  --out FILE        the picture, .png, .jpg or .webp (default: neighbours.png)
  --overwrite       replace the picture if it is there"""


def help_of(command: str) -> str:
    """The help of a command.

    >>> help_of("demo").splitlines()[0]
    'usage: sslkit demo [options of sslkit pretrain]'
    """
    texts = {
        "pretrain": PRETRAIN,
        "evaluate": EVALUATE,
        "export": EXPORT,
        "embed": EMBED,
        "neighbours": NEIGHBOURS,
        "demo": DEMO,
        "views": VIEWS,
    }
    return texts[command].replace("{configs}", ", ".join(config_names()))
