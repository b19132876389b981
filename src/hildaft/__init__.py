"""HiL-DAFT: dual-actor fine-tuning of vision-language-action models by talk and tweak."""

__version__ = "0.1.0"
