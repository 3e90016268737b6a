"""Run by an environment's own Python: puts in place of torchvision the two names that mosaicml-streaming imports."""

import sysconfig
from pathlib import Path

FILES = {
    "torchvision/__init__.py": "",
    "torchvision/datasets.py": "class VisionDataset:\n    pass\n",
    "torchvision/transforms/__init__.py": "",
    "torchvision/transforms/functional.py": "def to_tensor(image):\n    raise NotImplementedError\n",
    "torchvision-0.28.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n",
    "torchvision-0.28.0.dist-info/INSTALLER": "nextlong\n",
}


def main() -> None:
    """Write the package and the metadata by which pip takes it for installed."""
    for name, text in FILES.items():
        path = Path(sysconfig.get_path("purelib"), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
