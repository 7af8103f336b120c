"""Metadata is in setup.cfg. Here is only what it cannot say: two folders beside the package are installed inside it."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["sparsefeat", "sparsefeat.*"]),
        *(
            "sparsefeat.assets",
            "sparsefeat.configs",
            "sparsefeat.configs.study",
            "sparsefeat.configs.transfer",
        ),
    ],
    package_dir={"": ".", "sparsefeat.assets": "assets", "sparsefeat.configs": "configs"},
)
