"""The least that torch needs for one image: import, load, one forward. Arguments: the net's name, a state dict."""

import sys

import torch

from resnet_tools.nets.catalog import named_architecture
from resnet_tools.nets.state_dict import load_resnet

name, state = sys.argv[1:]
with torch.inference_mode():
    load_resnet(named_architecture(name), torch.load(state, weights_only=True))(torch.zeros(1, 3, 224, 224))
