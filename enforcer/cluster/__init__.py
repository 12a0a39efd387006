"""What the API server says, or a folder of manifests in its place: lists and watches as events. Nothing here decides
anything.
"""
