"""Classify images as a plain script with torchvision does. Arguments: the net's name there, a state dict, images."""

import sys

import torch
import torchvision
from PIL import Image
from torchvision import transforms

name, state, *paths = sys.argv[1:]
net = torchvision.models.get_model(name)
net.load_state_dict(torch.load(state, weights_only=True))
net.eval()
normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize])
for path in paths:
    with torch.no_grad():
        best = torch.softmax(net(prepare(Image.open(path).convert("RGB"))[None])[0], 0).topk(5)
    print(path, best.values.tolist(), best.indices.tolist())
