"""FFHQ-Aging: images named by number, and the crowd's labels in one CSV."""

LABELS_NAME = "ffhq_aging_labels.csv"
