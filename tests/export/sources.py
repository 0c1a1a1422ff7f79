"""Runs networks that engraft has written as PyTorch source: every operation of tests/fixtures/ops and every family of tests/fixtures/families
must give PyTorch's values within 1e-4, with the weights loaded by their names.

    python tests/export/sources.py target/debug/engraft [--install]

It needs numpy, safetensors and torch; --install installs them with pip.
"""

import importlib.util

import operations


class Source(operations.Exporter):
    """Networks that leave as a source."""

    def run(self, tensors, inputs, metadata=None, options=()):
        import torch

        source = self.convert(tensors, "network.py", metadata, options)
        spec = importlib.util.spec_from_file_location("network", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        inputs = torch.from_numpy(inputs)
        if "--mean" in options:
            inputs = module.normalize(inputs)
        if "unused" in tensors:
            network = module.Network().eval()
        else:
            network = module.load(source.with_name("network.safetensors"))
        with torch.no_grad():
            try:
                return network(inputs).numpy()
            except RuntimeError as error:
                raise SystemExit(f"{source.read_text()}\n{error}") from error


if __name__ == "__main__":
    operations.main(Source, __doc__, ["numpy", "safetensors", "torch"])
