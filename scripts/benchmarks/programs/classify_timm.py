"""Classify a folder with timm and its loader. Arguments: the net's name there, a state dict, a folder."""

import sys

import timm
import torch
from timm.data import ImageDataset, create_loader

name, state, folder = sys.argv[1:]
net = timm.create_model(name).eval()
net.load_state_dict(torch.load(state, weights_only=True))
loader = create_loader(
    ImageDataset(folder), (3, 224, 224), 32, use_prefetcher=False, num_workers=min(4, torch.get_num_threads())
)
with torch.no_grad():
    for images, _ in loader:
        print(torch.softmax(net(images), 1).topk(5).indices.tolist())
