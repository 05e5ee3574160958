"""Images and labels: sets by name, your own files, splits, label noise, augmentation.

Knows arrays and files, and no network. Every set becomes a `base.Dataset` of images in [0, 1] with the test images
apart. To add one: a subclass of `base.DatasetSource` in a file of its own here, registered with `DATASETS`.
"""
