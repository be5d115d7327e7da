"""sslkit: self-supervised and contrastive learning for images.

Importing the package does no work; import the part you need, for example ``sslkit.losses``.
"""

__version__ = "0.1.0"
