"""Classify images as a plain script with onnxruntime does. Arguments: a graph, images of 500 x 375 pixels."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB").resize((341, 256)).crop((58, 16, 282, 240))
    x = (np.asarray(image, np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    [logits] = session.run(None, {"images": x.transpose(2, 0, 1)[None].astype(np.float32)})
    powers = np.exp(logits[0] - logits.max())
    best = np.argsort(-powers)[:5]
    print(path, (powers / powers.sum())[best].tolist(), best.tolist())
