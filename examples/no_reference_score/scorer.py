"""A stand-in for a scorer: a line of JSON in for each image, a line with its score out. It likes dark images.

A real one loads its model once, before the loop, and scores with the prompt:

    model = ImageReward.load("ImageReward-v1.0")
    score = model.score(request["prompt"], request["image"])

Whatever else it prints belongs on standard error.
"""

import json
import sys

from PIL import Image, ImageStat

for line in sys.stdin:
    request = json.loads(line)
    brightness = ImageStat.Stat(Image.open(request["image"]).convert("L")).mean[0] / 255
    sys.stdout.write(json.dumps({"score": 1 - brightness}) + "\n")
